"""scripts/convert_demos.py takes two paths as they are, whatever characters are in them."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from pixio_robot.demos import DemoStore, Feature

SCRIPT = Path(__file__).parents[1] / "scripts" / "convert_demos.py"
FEATURES = {
    "observation.images.front": Feature((8, 8, 3), "uint8"),
    "observation.state": Feature((2,), "float32"),
    "action": Feature((1,), "float32"),
}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, cwd=folder)


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


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (without_images, "has no images"),
        (version_2, "is a LeRobotDataset v2.1, but v3.0 is needed"),
        (lambda folder: "nothing", "is neither"),
    ],
)
def test_bad_sources_get_a_sentence_and_exit_code_2(tmp_path, make, says):
    source = make(tmp_path)
    done = run(tmp_path, source, "made.zarr")
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "outputs") == (
        [] if source == "nothing" else [source]
    )


def test_a_reference_of_hydras_is_refused(tmp_path):
    done = run(tmp_path, "a${b}.zarr", "c")
    assert done.returncode == 2
    assert "rename it" in done.stderr


def test_a_third_path_is_refused(tmp_path):
    done = run(tmp_path, "a", "b", "c")
    assert done.returncode == 2
    assert "'c' is one path too many" in done.stderr
