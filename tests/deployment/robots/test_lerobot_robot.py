"""LeRobot's robots under the runtime: cameras and joints are believed or refused, a dry run says whether to drive."""

import io
import itertools
import json
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lerobot.cameras import ColorMode
from lerobot.cameras.opencv import OpenCVCamera, OpenCVCameraConfig
from rich.console import Console
from runtime_policies import METADATA, Counting, metadata

from pixio_robot.common.errors import UserError
from pixio_robot.deployment.driving import drive_robot
from pixio_robot.deployment.robots.lerobot_robot import LeRobotRobot, make_robot
from pixio_robot.deployment.runtime import Controller, HoldReason, LockStepClock, check_robot

# A robot without hardware.
sys.path.append(str(Path(__file__).parents[2] / "helpers" / "robot_plugin"))
from lerobot_robot_noting import Noting

ROBOT = {"type": "noting", "state_size": 2, "action_size": 2, "image_size": 48}


def camera(color_mode: ColorMode, seconds_ago: float) -> OpenCVCamera:
    """Return LeRobot's camera, not connected, whose last frame came some time ago."""
    made = OpenCVCamera(OpenCVCameraConfig(index_or_path=0, color_mode=color_mode))
    made.latest_timestamp = time.perf_counter() - seconds_ago
    return made


def test_a_lerobot_robots_cameras_are_believed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    robot: Any = make_robot({**ROBOT, "image_size": 24, "camera_names": ["front"], "calibration_dir": str(tmp_path)})
    front = [{**METADATA["cameras"][0], "width": 24}]
    names = {**METADATA["action"], "names": ["joint_1.pos", "joint_0.pos"]}  # another order than the robot's
    policy = Counting(metadata(cameras=front, action=names, state__names=["joint_0.pos", "joint_1.pos"]))
    controller = Controller(policy, "synchronous", LockStepClock())
    robot.cameras = {"front": camera(ColorMode.BGR, 0)}
    with pytest.raises(UserError, match="delivers BGR, but the artifact was trained on RGB"):
        check_robot(controller, LeRobotRobot(robot, policy.metadata, {}))
    robot.cameras = {"front": camera(ColorMode.RGB, 60)}
    seen = LeRobotRobot(robot, policy.metadata, {})
    check_robot(controller, seen)
    assert seen.named(np.array([1, 2])) == {"joint_1.pos": 1, "joint_0.pos": 2}
    assert controller.act(seen.observe()).held is HoldReason.STALE_CAMERA
    assert "frame of observation.images.front is 60." in caplog.text
    robot.cameras["front"].latest_timestamp = time.perf_counter()
    assert controller.act(seen.observe()).held is None
    with pytest.raises(
        UserError, match=r"action is a\.pos, joint_1\.pos, but the robot's is joint_0\.pos, joint_1\.pos"
    ):
        LeRobotRobot(robot, metadata(cameras=front, action={**names, "names": ["a.pos", "joint_1.pos"]}), {}, "robot")
    with pytest.raises(
        UserError, match=r"names=robot to take them for the robot's joint_0\.pos, joint_1\.pos, in that or"
    ):
        LeRobotRobot(robot, metadata(cameras=front, action=names), {})


def test_cameras_of_two_arms_are_believed_each_for_itself(tmp_path: Path) -> None:
    """As LeRobot's bimanual robots have them: `cameras` of both arms together, in which one wrist hides the other."""
    names = ["left_wrist", "right_wrist", "top"]
    robot: Any = make_robot({**ROBOT, "camera_names": names, "calibration_dir": str(tmp_path)})
    left = {"wrist": camera(ColorMode.BGR, 60), "top": camera(ColorMode.BGR, 30)}
    right = {"wrist": camera(ColorMode.RGB, 0)}
    robot.left_arm, robot.right_arm = types.SimpleNamespace(cameras=left), types.SimpleNamespace(cameras=right)
    robot.cameras = {**left, **right}
    seen = LeRobotRobot(robot, metadata(action__names=None), {}, "robot")
    orders = {key.rpartition(".")[2]: source.colour_order for key, source in seen.cameras.items()}
    assert orders == {"left_wrist": "BGR", "right_wrist": "RGB", "top": "BGR"}
    ages = {key.rpartition(".")[2]: round(age) for key, age in seen.observe().ages.items()}
    assert ages == {"left_wrist": 60, "right_wrist": 0, "top": 30}


def drive_toy(tmp_path: Path, dry_run: bool = False, **changes: Any) -> tuple[bool, str]:
    """Drive LeRobot's robot, which stands about 0, with a policy whose joints go from −1 to 1."""
    fields = {"size": 2, "names": ["joint_0.pos", "joint_1.pos"], "space": None, "limits_from": "demonstrations"}
    fields |= {
        "minimum": [-10.0, -10.0],
        "maximum": [10.0, 10.0],
        "largest_change": [1.0, 1.0],
        "largest_value": [1.0, 1.0],
    }
    front = [{**METADATA["cameras"][0], "height": 48, "width": 48}]
    policy = Counting(metadata(cameras=front, action={**fields, **changes}, state__names=fields["names"]))
    description = {
        **ROBOT,
        "camera_names": ["front"],
        "notes": str(tmp_path / "notes"),
        "calibration_dir": str(tmp_path),
    }
    console = Console(file=io.StringIO(), width=400)
    driven = {"mode": "synchronous", "seconds": 0.5, "rate": None, "console": console, "clock": LockStepClock()}
    went = drive_robot(policy, description, cameras={}, dry_run=dry_run, **driven)
    assert isinstance(console.file, io.StringIO)
    return went, console.file.getvalue()


def test_a_dry_run_says_what_would_be_changed_and_whether_to_drive(tmp_path: Path) -> None:
    went, said = drive_toy(tmp_path, dry_run=True)
    assert went and "slowed to the step" in said and "may be driven" in said  # the policy's second number is 7
    went, said = drive_toy(tmp_path, dry_run=True, minimum=[50.0, -10.0], maximum=[60.0, 10.0])
    assert not went and "not to be driven: joint_0.pos stands at" in said
    assert not (tmp_path / "notes").exists()
    with pytest.raises(UserError, match=r"joint_0\.pos stands at .*, outside of 50 to 60"):
        drive_toy(tmp_path, minimum=[50.0, -10.0], maximum=[60.0, 10.0])
    assert not (tmp_path / "notes").exists()


def test_the_last_command_is_sent_again_as_a_hold(tmp_path: Path) -> None:
    drive_toy(tmp_path)
    sent = [json.loads(line) for line in (tmp_path / "notes").read_text().splitlines()]
    assert len(sent) >= 6 and sent[-1] == sent[-2] and sent[0] != sent[-1]


def test_a_robot_that_was_hardly_ever_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = itertools.count()
    look = Noting.get_observation

    def loose(self: Noting) -> dict[str, Any]:
        if next(looks) % 6:
            raise RuntimeError("no status packet")
        return look(self)

    monkeypatch.setattr(Noting, "get_observation", loose)
    with pytest.raises(UserError, match=r"held in \d+ of \d+ control periods"):
        drive_toy(tmp_path)
