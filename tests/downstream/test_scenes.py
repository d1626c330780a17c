"""Scenes are rendered once, kept whole, and label what the camera sees."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from toy_simulator import FAMILIES, Sample, Squares, toy_simulator

from pixio_robot.common.errors import UserError
from pixio_robot.downstream.scenes import SceneSet, scenes

CONSOLE = Console(quiet=True)


def test_scenes_are_rendered_once(tmp_path: Path) -> None:
    wanted = SceneSet(FAMILIES, 6, 32, seed=1)
    before = Squares.rendered
    found = scenes(wanted, toy_simulator(), tmp_path, CONSOLE)
    assert Squares.rendered == before + 6
    again = scenes(wanted, toy_simulator(), tmp_path, CONSOLE)
    assert Squares.rendered == before + 6
    assert all(np.array_equal(one, other, equal_nan=True) for one, other in zip(found, again, strict=True))
    assert found.family_N.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(set(found.group_N.tolist())) == 6
    assert np.array_equal(found.frames_NHWC[4], Squares("dark", 32, 1).sample(1).frame)
    other = scenes(dataclasses.replace(wanted, seed=2), toy_simulator(), tmp_path, CONSOLE)
    assert not np.array_equal(other.frames_NHWC, found.frames_NHWC)


def test_rendering_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    class Breaks(Squares):
        def sample(self, index: int) -> Sample:
            if index == 2:
                raise KeyboardInterrupt
            return super().sample(index)

    simulator = dataclasses.replace(toy_simulator(), renderer=Breaks)
    with pytest.raises(KeyboardInterrupt):
        scenes(SceneSet(FAMILIES, 6, 32, seed=1), simulator, tmp_path, CONSOLE)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="1 frames are too few for 2"):
        scenes(SceneSet(FAMILIES, 1, 32, seed=1), toy_simulator(), tmp_path, CONSOLE)


def test_only_what_the_camera_sees_has_a_place(tmp_path: Path) -> None:
    # With a focal length of half the picture it sees as far to each side as ahead.
    places = [(0.9, 0.0, 1.0), (1.1, 0.0, 1.0), (0.0, 0.0, -1.0), (math.nan,) * 3]

    class Placed(Squares):
        def sample(self, index: int) -> Sample:
            sample, pose = super().sample(index), np.eye(4)
            pose[:3, 3] = places[index]
            return dataclasses.replace(sample, gripper_poses=pose[None], object_positions=np.zeros((0, 3)))

    simulator = dataclasses.replace(toy_simulator(), renderer=Placed)
    found = scenes(SceneSet(("bright",), 4, 32, seed=1), simulator, tmp_path, CONSOLE)
    assert np.isnan(found.gripper_pose_N44).any(axis=(1, 2)).tolist() == [False, True, True, True]
    assert np.isnan(found.object_position_N3).all()
