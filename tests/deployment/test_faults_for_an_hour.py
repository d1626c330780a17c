"""An hour of simulated time in which robot, cameras and policy fail at random: no command is ever outside of its limits."""

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lerobot.robots import Robot
from rich.console import Console
from runtime_policies import Counting, metadata

from pixio_robot.deployment import driving
from pixio_robot.deployment.config import Caution
from pixio_robot.deployment.driving import drive_robot
from pixio_robot.deployment.robots.lerobot_robot import make_robot
from pixio_robot.deployment.runtime import HoldReason, LockStepClock

ROBOT = {"type": "pixio_sim", "env": "pixio_pusht", "image_size": 32, "episode_length": 200}
NAMES, RATE, STEP = ["x.pos", "y.pos"], 10, 25.0
DESCRIBED = metadata(
    cameras=[
        {"key": "observation.images.top", "height": 32, "width": 32, "colour_order": "RGB", "frame_sizes": "exact"}
    ],
    state={"key": "observation.state", "size": 2, "names": NAMES},
    action={
        **{"size": 2, "names": NAMES, "space": "absolute position of the finger", "limits_from": "demonstrations"},
        **{"minimum": [20.0, 30.0], "maximum": [490.0, 480.0]},
        **{"largest_change": [STEP, STEP], "largest_value": [490.0, 480.0]},
    },
    control_rate_hz=RATE,
)
# How often what happens in a call; a look that fails ten times in a second would end the drive.
LOOKS = {"fails": 0.05, "nan": 0.03, "lacks": 0.03, "late": 0.02, "other_size": 0.02}
CHUNKS = {"fails": 0.1, "nan": 0.1, "shape": 0.05, "jump": 0.2, "late": 0.05, "list": 0.02}


class Failing(Robot):
    """The simulated robot, whose cables are loose; notes where it stood first, and every command."""

    name = "failing"

    def __init__(self, robot: Robot, clock: LockStepClock, random: np.random.Generator) -> None:
        self._robot, self._clock, self._random = robot, clock, random
        self.moves_only_when_told = True
        self.stood: list[float] = []
        self.sent: list[list[float]] = []
        self.calls: list[str] = []

    is_connected = is_calibrated = True

    def connect(self, calibrate: bool = True) -> None:
        self._robot.connect(calibrate)

    def calibrate(self) -> None:
        self._robot.calibrate()

    def configure(self) -> None:
        self._robot.configure()

    @property
    def observation_features(self) -> dict[str, Any]:
        return self._robot.observation_features

    @property
    def action_features(self) -> dict[str, Any]:
        return self._robot.action_features

    def disconnect(self) -> None:
        self.calls.append("disconnect")
        self._robot.disconnect()

    def get_observation(self) -> dict[str, Any]:
        seen = self._robot.get_observation()
        trouble = drawn(self._random, LOOKS)
        if trouble == "fails":
            raise OSError("no status packet")
        if trouble == "nan":
            return {**seen, "x.pos": float("nan")}
        if trouble == "lacks":
            return {name: value for name, value in seen.items() if name != "top"}
        if trouble == "late":
            self._clock.sleep_until(self._clock.now() + self._random.uniform(0, 3))
        if trouble == "other_size":
            return {**seen, "top": np.zeros((64, 64, 3), np.uint8)}
        self.stood = self.stood or [seen[name] for name in NAMES]
        return seen

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        self.sent.append([action[name] for name in NAMES])
        self.calls.append("send")
        return self._robot.send_action(action)


def drawn(random: np.random.Generator, chances: dict[str, float]) -> str | None:
    """Return one of some troubles, or mostly none."""
    names = [*chances, None]
    return names[random.choice(len(names), p=[*chances.values(), 1 - sum(chances.values())])]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("mode", "seconds"),
    [
        ("synchronous", 20),
        ("ensemble", 20),
        *(pytest.param(mode, 1800, marks=pytest.mark.slow) for mode in ("synchronous", "ensemble", "asynchronous")),
    ],
)
def test_no_command_is_outside_of_its_limits(
    mode: str, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logging.disable(logging.WARNING)
    random, clock = np.random.default_rng(0), LockStepClock()
    robot = Failing(make_robot({**ROBOT, "calibration_dir": str(tmp_path)}), clock, random)
    monkeypatch.setattr(driving, "make_robot", lambda description: robot)

    def chunk(number: int) -> Any:
        trouble = drawn(random, CHUNKS)
        if trouble == "fails":
            raise LookupError("no such policy")
        if trouble == "late":
            clock.sleep_until(clock.now() + random.uniform(0, 3))
        places = np.cumsum(random.normal(0, 20, (6, 2)), axis=0) + 250
        scale = {"nan": np.nan, "jump": random.normal(0, 1e6)}.get(trouble or "", 1)
        answer = (places * scale).astype(np.float32)
        return {"shape": answer[:5], "list": answer.tolist()}.get(trouble or "", answer)

    try:
        driven = {"cameras": {}, "mode": mode, "seconds": seconds, "rate": None, "dry_run": False}
        console = Console(file=io.StringIO(), width=400)
        drive_robot(
            Counting(DESCRIBED, chunk), ROBOT, **driven, console=console, caution=Caution(step_factor=1.0), clock=clock
        )
    finally:
        logging.disable(logging.NOTSET)
    sent = np.array(robot.sent)
    assert len(sent) > seconds * RATE / 4
    assert (sent >= [20, 30]).all() and (sent <= [490, 480]).all()
    steps = np.abs(np.diff(np.vstack([robot.stood, sent]), axis=0))
    assert steps.max() <= STEP + 1e-3
    assert (steps > 0).mean() > 0.2  # it moved
    assert robot.calls[-2:] == ["send", "disconnect"]
    assert (sent[-1] == sent[-2]).all()
    assert isinstance(console.file, io.StringIO)
    for reason in (
        HoldReason.BAD_OBSERVATION,
        HoldReason.UNREADABLE,
        HoldReason.FAILED_INFERENCE,
        HoldReason.BAD_ACTION,
    ):
        assert str(reason) in console.file.getvalue()
