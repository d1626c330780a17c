"""scripts/convert_demos.py takes two paths as they are, whatever characters are in them."""

import subprocess
from pathlib import Path

import pytest
from bad_sources import (
    make_store,
    missing_array,
    mixed_rates,
    truncated_chunk,
    unreadable_video,
    version_2,
    without_images,
)
from forked_scripts import run_script

from pixio_robot.demos import DemoStore


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_script("convert_demos.py", *arguments, cwd=folder)


def test_two_paths_without_keys(tmp_path):
    source, middle, back = "it's, a [$store] \\.zarr", "a 'b' \\'.zarr.zip", "{back}: (again)"
    store = make_store(tmp_path / source)
    for arguments in ([source, middle], [middle, back]):
        done = run(tmp_path, *arguments)
        assert done.returncode == 0, done.stderr
    again = DemoStore.open(tmp_path / back)
    assert again.fingerprint() == store.fingerprint()
    assert again.episode_tasks == ["reach"]


def test_a_path_and_a_key(tmp_path):
    make_store(tmp_path / "s.zarr")
    done = run(tmp_path, "s.zarr", "destination=r.zarr", "format=replay_buffer")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "r.zarr" / ".zgroup").exists()


@pytest.mark.parametrize(
    ("make", "made", "says"),
    [
        (truncated_chunk, "made", "damaged: data/observation.images.front cannot be read"),
        (truncated_chunk, "made.demos.zip", "damaged: data/observation.images.front cannot be read"),
        (missing_array, "made.hdf5", "damaged: data/action cannot be read"),
        (without_images, "made.zarr", "has no images"),
        (mixed_rates, "made.zarr", "has mixed frame rates, from 10 to 20 Hz"),
        (version_2, "made.zarr", "is a LeRobotDataset v2.1, but v3.0 is needed"),
        (unreadable_video, "made.zarr", "file-000.mp4: observation.images.front of episode 0, step"),
        (lambda folder: "nothing", "made.zarr", "There is nothing at"),
    ],
)
def test_bad_sources_get_a_sentence_and_exit_code_2(tmp_path, make, made, says):
    source = make(tmp_path)
    done = run(tmp_path, source, made)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")  # after the progress bar, where there is one
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "outputs") == (
        [] if source == "nothing" else [source]
    )


def test_a_file_for_sharing_and_back(tmp_path):
    store = make_store(tmp_path / "s.zarr")
    for arguments in (["s.zarr", "s.demos.zip"], ["s.demos.zip", "back.zarr", "format=store", "codec=lossless"]):
        done = run(tmp_path, *arguments)
        assert done.returncode == 0, done.stderr
    assert DemoStore.open(tmp_path / "back.zarr").fingerprint() == store.fingerprint()


def test_a_reference_of_hydras_is_refused(tmp_path):
    done = run(tmp_path, "a${b}.zarr", "c")
    assert done.returncode == 2
    assert "rename it" in done.stderr


def test_a_third_path_is_refused(tmp_path):
    done = run(tmp_path, "a", "b", "c")
    assert done.returncode == 2
    assert "'c' is one path too many" in done.stderr
