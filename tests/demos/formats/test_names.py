"""What each number of state and action is goes with the numbers, through every format."""

import json
from io import StringIO
from pathlib import Path

import h5py
import numpy as np
import pytest
from lerobot.datasets import LeRobotDataset
from numbered_episodes import FEATURES, append_numbered
from rich.console import Console

from pixio_robot.demos import DemoStore
from pixio_robot.demos.formats.conversion import convert
from pixio_robot.demos.inspection.report import run_inspection

NAMES = {
    "observation.state": ["base.pos", "elbow.pos", "wrist.pos", "wrist.roll", "gripper.pos"],
    "action": ["dx", "dy", "grip"],
}
QUIET = Console(file=StringIO())


@pytest.fixture
def store(tmp_path: Path) -> DemoStore:
    store = DemoStore.create(tmp_path / "demos.zarr", FEATURES, {"fps": 20, "names": NAMES})
    for number in range(2):
        append_numbered(store, number)
    store.close()
    return store


@pytest.mark.parametrize("made", ["there.hdf5", "there.zarr.zip", "there.demos.zip", "there_lerobot"])
def test_names_go_there_and_come_back(store, tmp_path, made):
    convert(store.path, tmp_path / made, use_videos=False if made == "there_lerobot" else None, console=QUIET)
    if made.endswith(".demos.zip"):
        assert DemoStore.open(tmp_path / made).names == NAMES
        return
    convert(tmp_path / made, tmp_path / "back.zarr", console=QUIET)
    assert DemoStore.open(tmp_path / "back.zarr").names == NAMES


def test_lerobot_reads_names_and_gets_some_where_none_are_known(store, make_store, tmp_path):
    convert(store.path, tmp_path / "named", use_videos=False, console=QUIET)
    features = LeRobotDataset("local/named", tmp_path / "named").meta.features
    assert {key: features[key]["names"] for key in NAMES} == NAMES
    (tmp_path / "other").mkdir()
    nameless = DemoStore.create(tmp_path / "other/demos.zarr", FEATURES, {"fps": 20})
    append_numbered(nameless, 0)
    nameless.close()
    convert(nameless.path, tmp_path / "nameless", use_videos=False, console=QUIET)
    features = LeRobotDataset("local/nameless", tmp_path / "nameless").meta.features
    assert features["action"]["names"] == ["action_0", "action_1", "action_2"]
    convert(tmp_path / "nameless", tmp_path / "back.zarr", console=QUIET)
    assert DemoStore.open(tmp_path / "back.zarr").names == {}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ({"motors": ["x", "y", "z"]}, ["x", "y", "z"]),
        ({"arm": ["x", "y"], "hand": ["grip"]}, ["x", "y", "grip"]),
        ({"x": 0, "y": 1, "z": 2}, ["x", "y", "z"]),
        (["x", "y"], None),
        (None, None),
    ],
)
def test_names_as_others_write_them(store, tmp_path, written, read):
    convert(store.path, tmp_path / "dataset", use_videos=False, console=QUIET)
    (tmp_path / "dataset/meta/pixio_robot.json").unlink()  # another's dataset has none
    info_file = tmp_path / "dataset/meta/info.json"
    info = json.loads(info_file.read_text())
    info["features"]["action"]["names"] = written
    info_file.write_text(json.dumps(info))
    convert(tmp_path / "dataset", tmp_path / "back.zarr", console=QUIET)
    assert DemoStore.open(tmp_path / "back.zarr").names.get("action") == read


def test_arrays_of_robomimic_name_their_numbers(tmp_path):
    with h5py.File(tmp_path / "lift.hdf5", "w") as file:
        file.create_group("data").attrs["env_args"] = json.dumps({"env_kwargs": {"control_freq": 20}})
        file["data/demo_0/actions"] = np.zeros((3, 7))
        file["data/demo_0/obs/front_image"] = np.zeros((3, 8, 8, 3), np.uint8)
        for name, width in (("eef_pos", 3), ("eef_quat", 4), ("gripper_qpos", 2)):
            file[f"data/demo_0/obs/robot0_{name}"] = np.ones((3, width))
    convert(tmp_path / "lift.hdf5", tmp_path / "lift.zarr", console=QUIET)
    hand = ["robot0_eef_pos.x", "robot0_eef_pos.y", "robot0_eef_pos.z"]
    turn = [f"robot0_eef_quat.{axis}" for axis in "xyzw"]
    fingers = ["robot0_gripper_qpos.0", "robot0_gripper_qpos.1"]
    assert DemoStore.open(tmp_path / "lift.zarr").names == {"observation.state": hand + turn + fingers}


def test_an_inspection_labels_by_names(store, tmp_path, capsys):
    run_inspection(store.path, tmp_path / "out", video=False)
    shown = capsys.readouterr().out
    assert all(name in shown for name in [*NAMES["observation.state"], *NAMES["action"]])
    assert json.loads((tmp_path / "out/inspection.json").read_text())["attributes"]["names"] == NAMES
