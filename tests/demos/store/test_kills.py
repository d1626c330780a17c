"""Converters that are killed with SIGKILL at random times: what they make is whole or not there, and is made anew."""

import random
import time
from io import StringIO
from pathlib import Path

import pytest
from forked import FORK, run_forked
from numbered_episodes import append_numbered, assert_holds_numbered
from rich.console import Console

from pixio_robot.demos import DemoStore, Feature
from pixio_robot.demos.formats.conversion import convert
from pixio_robot.demos.formats.lerobot import export_lerobot  # noqa: F401 (loaded before the forks, which each would)

N_EPISODES = 6
FEATURES = {
    "observation.images.front": Feature((32, 32, 3), "uint8"),
    "observation.state": Feature((3,), "float32"),
    "action": Feature((2,), "float32"),
}
# What is made, from what; lossless all, so that the way back shows whether all is there.
PATHS = {
    "export to LeRobot": ("demos.zarr", "lerobot"),
    "export to robomimic": ("demos.zarr", "demos.hdf5"),
    "export to a replay buffer": ("demos.zarr", "buffer.zarr.zip"),
    "export to a zip file": ("demos.zarr", "shared.demos.zip"),
    "import from LeRobot": ("lerobot", "back.zarr"),
    "import from robomimic": ("demos.hdf5", "back.zarr"),
    "import from a replay buffer": ("buffer.zarr.zip", "back.zarr"),
}


def convert_quietly(source: Path, destination: Path) -> None:
    videos = False if destination.suffix == "" else None
    convert(source, destination, use_videos=videos, console=Console(file=StringIO()))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same episodes in each format."""
    folder = tmp_path_factory.mktemp("sources")
    store = DemoStore.create(folder / "demos.zarr", FEATURES, {"fps": 20})
    for number in range(N_EPISODES):
        append_numbered(store, number)
    store.close()
    for name in ("lerobot", "demos.hdf5", "buffer.zarr.zip"):
        assert run_forked(convert_quietly, folder / "demos.zarr", folder / name, timeout=120) == 0
    return folder


def assert_whole(destination: Path, folder: Path) -> None:
    if destination.suffix != ".zarr" and not destination.name.endswith(".demos.zip"):
        back = folder / "checked.zarr"
        convert_quietly(destination, back)
        destination = back
    assert_holds_numbered(DemoStore.open(destination), N_EPISODES)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("n_kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_while_converting(sources, tmp_path, path, n_kills):
    source, name = PATHS[path]
    destination = tmp_path / "made" / name
    start = time.monotonic()
    assert run_forked(convert_quietly, sources / source, tmp_path / "first" / name, timeout=120) == 0
    duration = time.monotonic() - start
    delays, n_whole = random.Random(path), 0
    for _ in range(n_kills):
        process = FORK.Process(target=convert_quietly, args=(sources / source, destination))
        process.start()
        time.sleep(delays.uniform(0, duration))
        process.kill()
        process.join()
        if destination.exists():  # then it was done
            n_whole += 1
            destination.rename(tmp_path / f"whole {n_whole} {name}")
    assert run_forked(convert_quietly, sources / source, destination, timeout=120) == 0
    assert [file.name for file in destination.parent.iterdir()] == [name]  # nothing is left of the killed ones
    for number in range(n_whole + 1):
        folder = tmp_path / f"check {number}"
        folder.mkdir()
        assert_whole(tmp_path / f"whole {number} {name}" if number else destination, folder)
