"""scripts/convert_demos.py takes two paths as they are, whatever characters are in them."""

import json
import os
import shutil
import subprocess
from io import StringIO
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from forked_scripts import run_script
from rich.console import Console

from pixio_robot.demos import DemoStore, Feature

FEATURES = {
    "observation.images.front": Feature((8, 8, 3), "uint8"),
    "observation.state": Feature((2,), "float32"),
    "action": Feature((1,), "float32"),
}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_script("convert_demos.py", *arguments, cwd=folder)


def make_store(path: Path) -> DemoStore:
    store = DemoStore.create(path, FEATURES, {"fps": 5})
    episode = {key: np.ones((3, *feature.shape), feature.dtype) for key, feature in FEATURES.items()}
    store.append_episode(episode, seed=4, success=True, task="reach")
    store.close()
    return store


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


def without_images(folder: Path) -> str:
    with h5py.File(folder / "low_dim.hdf5", "w") as file:
        file["data/demo_0/actions"] = np.zeros((3, 7))
        file["data/demo_0/obs/object"] = np.zeros((3, 10))
    return "low_dim.hdf5"


def version_2(folder: Path) -> str:
    (folder / "old" / "meta").mkdir(parents=True)
    (folder / "old" / "meta" / "info.json").write_text(json.dumps({"codebase_version": "v2.1"}))
    return "old"


def truncated_chunk(folder: Path) -> str:
    store = make_store(folder / "cut.zarr")
    chunk = store.path / "data/observation.images.front/c/0/0/0/0"
    os.truncate(chunk, chunk.stat().st_size // 2)
    return "cut.zarr"


def missing_array(folder: Path) -> str:
    store = make_store(folder / "lacking.zarr")
    (store.path / "data/action/zarr.json").unlink()
    return "lacking.zarr"


def mixed_rates(folder: Path) -> str:
    root = zarr.open_group(str(folder / "mixed.zarr"), mode="w", zarr_format=2)
    arrays = {
        "img": np.zeros((8, 8, 8, 3), np.uint8),
        "agent_pos": np.zeros((8, 2)),
        "action": np.zeros((8, 2)),
        "timestamp": np.array([0, 0.1, 0.2, 0.3, 0, 0.05, 0.1, 0.15]),
    }
    for name, values in arrays.items():
        root.create_array(f"data/{name}", data=values)
    root.create_array("meta/episode_ends", data=np.array([4, 8]))
    return "mixed.zarr"


def unreadable_video(folder: Path) -> str:
    from pixio_robot.demos.lerobot_format import export_lerobot

    features = FEATURES | {"observation.images.front": Feature((64, 64, 3), "uint8")}
    store = DemoStore.create(folder / "store.zarr", features, {"fps": 5})
    episode = {key: np.ones((3, *feature.shape), feature.dtype) for key, feature in features.items()}
    store.append_episode(episode, seed=4, success=True, task="reach")
    export_lerobot(store, folder / "recorded", "local/recorded", console=Console(file=StringIO()))
    shutil.rmtree(store.path)
    next((folder / "recorded").rglob("*.mp4")).write_bytes(b"no video")
    return "recorded"


@pytest.mark.parametrize(
    ("make", "made", "says"),
    [
        (truncated_chunk, "made", "damaged: data/observation.images.front cannot be read"),
        (truncated_chunk, "made.demos.zip", "damaged: data/observation.images.front cannot be read"),
        (missing_array, "made.hdf5", "damaged: data/action cannot be read"),
        (without_images, "made.zarr", "has no images"),
        (mixed_rates, "made.zarr", "has mixed frame rates, from 10 to 20 Hz"),
        (version_2, "made.zarr", "is a LeRobotDataset v2.1, but v3.0 is needed"),
        (unreadable_video, "made.zarr", "file-000.mp4 cannot be read"),
        (lambda folder: "nothing", "made.zarr", "is neither"),
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
