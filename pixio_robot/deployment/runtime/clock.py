"""Time as an argument: the wall clock on a robot, a clock moved by hand in lock step and in tests."""

import time
from concurrent.futures import Future
from typing import Protocol

from pixio_robot.deployment.runtime.worker import is_done


class Clock(Protocol):
    """What the runtime knows of time; seconds from an arbitrary start."""

    def now(self) -> float:
        """Return the time."""
        ...

    def sleep_until(self, moment: float) -> None:
        """Return when it is `moment`, at once if that has passed."""
        ...

    def wait(self, future: Future, seconds: float) -> bool:
        """Wait for a call at most some seconds, and say whether it is done."""
        ...


class WallClock(Clock):
    """Real time, monotonic."""

    def now(self) -> float:
        """Return the time."""
        return time.perf_counter()

    def sleep_until(self, moment: float) -> None:
        """Sleep until `moment`."""
        time.sleep(max(0.0, moment - self.now()))

    def wait(self, future: Future, seconds: float) -> bool:
        """Wait for a call at most some seconds, and say whether it is done."""
        return is_done(future, seconds)


class LockStepClock(Clock):
    """Time that stands still but for `sleep_until`: what the robot's computer does takes none of it."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        """Return the time."""
        return self._now

    def sleep_until(self, moment: float) -> None:
        """Make it `moment`."""
        self._now = max(self._now, moment)

    def wait(self, future: Future, seconds: float) -> bool:
        """Wait for a call until it is done, which takes no time."""
        del seconds
        return is_done(future, None)
