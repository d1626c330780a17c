"""A robot without hardware that records every call with its time, and fails as it is told to.

Its action has a velocity, an arm's place and a gripper, its state the arm's place: every kind of number that a hold knows.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from runtime_policies import CAMERA, metadata

from pixio_robot.deployment.runtime import CameraSource, Observation

NAMES = ["base.vel", "arm.pos", "gripper.pos"]
RATE = 20  # slow enough for a busy machine to keep
DESCRIBED = metadata(
    state={"key": "observation.state", "size": 1, "names": ["arm.pos"]},
    action={
        **{"size": 3, "names": NAMES, "space": None, "limits_from": "demonstrations"},
        **{"minimum": [0.2, -5.0, 0.0], "maximum": [0.8, 5.0, 10.0]},  # demonstrations always drove on
        **{"largest_change": [0.1, 0.02, 7.0], "largest_value": [0.5, 5.0, 7.0]},
    },
    control_rate_hz=RATE,
)


class Call(NamedTuple):
    """One call of the robot's, when it began."""

    name: str
    time: float
    action: list[float] | None = None


class Recorded:
    """A `Device`; each call of `troubles` is made in the place of its own before it, with the number of calls so far."""

    cameras = {CAMERA: CameraSource(24, 32)}  # noqa: RUF012
    state_size, action_size, moves_only_when_told = 1, 3, False

    def __init__(
        self, notes: Path, over: Callable[[list[Call]], bool] = lambda calls: False, **troubles: Callable[[int], None]
    ) -> None:
        self._notes, self._over, self.troubles = notes, over, troubles
        self._counts: dict[str, int] = {}
        self._random = np.random.default_rng(0)

    @property
    def calls(self) -> list[Call]:
        """What was called so far, by whatever process."""
        return [Call(*json.loads(line)) for line in self._notes.read_text().splitlines()]

    @property
    def is_over(self) -> bool:
        """Whether what was called so far is enough, however long that took."""
        return self._over(self.calls)

    def connect(self) -> None:
        self._note("connect")

    def disconnect(self) -> None:
        self._note("disconnect")

    def observe(self) -> Observation:
        self._note("observe")
        frame = self._random.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        return Observation({CAMERA: frame, "observation.state": np.zeros(1, np.float32)}, time.perf_counter())

    def send(self, action: np.ndarray) -> None:
        self._note("send", [float(number) for number in action])

    def note(self, name: str, action: list[float] | None = None) -> None:
        """Write down that something happened now."""
        line = json.dumps([name, time.monotonic(), action]) + "\n"
        file = os.open(self._notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)  # what a signal interrupts has been written
        os.write(file, line.encode())
        os.close(file)

    def _note(self, name: str, action: list[float] | None = None) -> None:
        count = self._counts[name] = self._counts.get(name, -1) + 1
        self.note(name, action)
        self.troubles.get(name, lambda count: None)(count)


def raising(first: int, error: BaseException, last: int = 1 << 30) -> Callable[[int], None]:
    """Return a trouble: calls fail."""

    def trouble(count: int) -> None:
        if first <= count <= last:
            raise error

    return trouble


def chunk(number: int, **changed: Any) -> np.ndarray:
    """Return a policy's answer (6, 3): it drives on while the arm goes slowly up."""
    values = {"base": 0.5, "arm": 0.01 * number, "gripper": 7.0, **changed}
    return np.tile(np.array(list(values.values()), np.float32), (6, 1))
