"""Between the control loop and a real robot: every call of its driver, every way out, and the watchdog.

The driver has a thread of its own, which makes its calls one after the other, since drivers are not made for several at
once. The same thread is the watchdog: when no command came in time, it holds the robot. The main thread never waits for the
driver longer than a call may take, so that signals are answered, and a driver that hangs is given up::

    main        look       infer              send       look        infer hangs …
    driver          observe                       send       observe              hold
                                                  |<---- a command's age ---->|

On every way out (the end, an exception of any type, a signal, a hang) the robot gets a hold, makes its own safe stop where
it has one, and is disconnected, in this order. Where the driver hangs, these calls are made from another thread beside the
one that hangs: nothing better is left.
What ends the process without a word (SIGKILL, a crash of native code, power) is left to the robot's own controller.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Protocol

import numpy as np

from pixio_robot.common.errors import UserError
from pixio_robot.common.signals import EVERY_END, StoppedError, requests_raise
from pixio_robot.deployment.runtime.controller import Controller
from pixio_robot.deployment.runtime.holding import HoldReason, hold_action
from pixio_robot.deployment.runtime.loop import Robot
from pixio_robot.deployment.runtime.observation import CameraSource, NotReadError, Observation
from pixio_robot.deployment.runtime.worker import Worker, is_done

logger = logging.getLogger(__name__)

# A command is old when the next is so much late; below that, the scheduler of a busy computer is to be forgiven.
_AGE_PERIODS, _LEAST_AGE = 2.5, 0.1
_HOLD_SECONDS, _DISCONNECT_SECONDS = 0.3, 5.0
_SIMULATED_CALL_SECONDS = 120.0  # some begin an episode in it


class Device(Robot, Protocol):
    """A robot that is there or not, and moves by itself once it was told to.

    One with a method `safe_stop` is stopped by it on every way out, after the hold.
    """

    @property
    def moves_only_when_told(self) -> bool:
        """Whether its time stands still between commands, as a simulation's: no command gets old."""
        ...

    def connect(self) -> None:
        """Make it ready."""
        ...

    def disconnect(self) -> None:
        """Let it go."""
        ...


class Guard:
    """A robot of the runtime in front of a device; made by `guarded`."""

    def __init__(self, device: Device, controller: Controller, call_seconds: float) -> None:
        controller.limits.check_holds()
        self._device, self._limits, self._report = device, controller.limits, controller.report
        alone = device.moves_only_when_told
        self._call_seconds = _SIMULATED_CALL_SECONDS if alone else call_seconds
        self._hold_seconds = self._call_seconds if alone else _HOLD_SECONDS
        self._age = float("inf") if alone else max(_AGE_PERIODS / controller.rate, _LEAST_AGE)
        self._sent_at: float | None = None  # when the command that is not yet old was sent
        self._last_sent: np.ndarray | None = None
        self._is_connected = self._hangs = self._has_left = False
        self._leaving: Future[list[str]] | None = None
        self._one_way_out, self._failures = threading.Lock(), list[str]()
        self._last_frames: dict[str, tuple[np.ndarray, float]] = {}
        self._worker = Worker("robot", self._until_old, self._hold_in_time)

    @property
    def cameras(self) -> Mapping[str, CameraSource]:
        """The device's."""
        return self._device.cameras

    @property
    def state_size(self) -> int | None:
        """The device's."""
        return self._device.state_size

    @property
    def action_size(self) -> int:
        """The device's."""
        return self._device.action_size

    @property
    def is_over(self) -> bool:
        """The device's."""
        return self._device.is_over

    def connect(self) -> None:
        """Connect, for as long as it takes: a person may be calibrating.

        Raises:
            UserError: It cannot be.
        """
        try:
            self._call(self._device.connect, None)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | UserError):
                raise
            raise UserError(f"The robot could not be connected: {_said(error)}.") from error
        self._is_connected = True

    def observe(self) -> Observation:
        """Return what the robot perceives, with the ages of frames that carry no time.

        Raises:
            NotReadError: The driver failed.
            UserError: It hangs, or wants to end the process.
        """
        try:
            observation = self._call(self._device.observe, self._call_seconds)
        except Exception as error:
            if isinstance(error, UserError):
                raise
            raise NotReadError(_said(error)) from error
        return observation if self._device.moves_only_when_told else self._dated(observation)

    def send(self, action: np.ndarray) -> None:
        """Send a command.

        Raises:
            UserError: The driver failed, or hangs.
        """
        try:
            self._call(lambda: self._sent(action), self._call_seconds)
        except Exception as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"The robot takes no more actions ({_said(error)}); its cable or its power may be why: look at both, and "
                "start again."
            ) from error

    def leave(self) -> list[str]:
        """Hold and disconnect, once, whatever state the driver is in; returns what went wrong.

        A thread of its own does it, which no signal interrupts: who was interrupted waiting for it waits again.
        """
        if self._leaving is None:
            self._leaving = Worker("robot's way out").submit(self._leave)
        return self._leaving.result()

    def _call[R](self, call: Callable[[], R], seconds: float | None) -> R:
        future: Future[R] = self._worker.submit(call)
        if not is_done(future, seconds):
            self._hangs = True
            raise UserError(
                f"The robot's driver did not return within {seconds:g} s, and was given up; its cable or its power may be "
                "why: look at both, and start again."
            )
        try:
            return future.result()
        except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:
            raise UserError(f"The robot's driver wanted to end the program ({_said(error)}).") from error

    def _sent(self, action: np.ndarray) -> None:
        if self._has_left:
            return
        self._last_sent, self._sent_at = action, time.monotonic()
        self._device.send(action)
        self._sent_at = time.monotonic()

    def _until_old(self) -> float | None:
        left = None if self._sent_at is None else self._sent_at + self._age - time.monotonic()
        return None if left is None or left == float("inf") else max(0.0, left)

    def _hold_in_time(self) -> None:
        """Hold, in the driver's thread, since the last command is as old as it may be."""
        self._sent_at = None
        hold = self._hold()
        if hold is None or self._has_left:
            return
        failure = ""
        try:
            self._device.send(hold)
        except BaseException as error:
            failure = f", but the robot did not take it ({_said(error)})"
        self._report.holds[HoldReason.NO_COMMAND] += 1
        if failure or self._report.holds[HoldReason.NO_COMMAND] == 1:
            logger.warning("holds: %s: nothing for %.2f s%s; said once", HoldReason.NO_COMMAND, self._age, failure)

    def _leave(self) -> list[str]:
        with self._one_way_out:
            if self._has_left:
                return self._failures
            self._has_left = True
            hold = self._hold()
            if hold is not None:
                self._last_call("hold", lambda: self._device.send(hold), self._hold_seconds)
            stop = getattr(self._device, "safe_stop", None)
            if self._is_connected and stop is not None:
                self._last_call("safe stop", stop, self._hold_seconds)
            self._last_call("disconnect", self._device.disconnect, _DISCONNECT_SECONDS)
            self._worker.shutdown(cancel_futures=True)
            if not self._is_connected:  # of which a driver may complain
                self._failures.clear()
            return self._failures

    def _hold(self) -> np.ndarray | None:
        """Return what stands still after the last command that was sent; None before the first."""
        assert self._limits.kinds is not None
        return None if self._last_sent is None else hold_action(self._limits.kinds, self._last_sent)

    def _last_call(self, what: str, call: Callable[[], None], seconds: float) -> None:
        """Make one of the last two calls, beside the driver's thread if a call hangs there."""
        future = None if self._hangs else self._worker.submit(call)
        if future is not None and not is_done(future, seconds) and future.cancel():  # something before it hangs
            self._hangs, future = True, None
        if future is None:
            future = Worker("robot's rescue").submit(call)
        if not is_done(future, seconds):
            self._hangs = True
            self._failures.append(f"{what} did not return within {seconds:g} s")
        elif (error := future.exception()) is not None:
            self._failures.append(f"{what} failed ({_said(error)})")

    def _dated(self, observation: Observation) -> Observation:
        """Date frames that carry no time by when their content last changed: a camera that works has noise."""
        now, ages = time.monotonic(), dict(observation.ages)
        for key in self._device.cameras:
            frame = observation.values.get(key)
            if key in ages or not isinstance(frame, np.ndarray):
                continue
            before, since = self._last_frames.get(key, (None, now))
            if before is None or not np.array_equal(before, frame):
                self._last_frames[key] = (frame.copy(), now)
            else:
                ages[key] = now - since
        return Observation(observation.values, observation.time, ages)


@contextmanager
def guarded(device: Device, controller: Controller, call_seconds: float = 0.5) -> Iterator[Guard]:
    """Connect a device, and leave it held and disconnected whatever happens within.

    In the main thread, requests to end the process raise within; the first alone, so that nothing interrupts the way out.

    Args:
        device: Checked by `check_robot`.
        controller: What will command it; its limits say what a hold is.
        call_seconds: Longest time that a call of the driver may take.

    Raises:
        UserError: No hold is known in the artifact's action space, or the robot cannot be connected, or not be left.
    """
    guard = Guard(device, controller, call_seconds)
    with requests_raise(EVERY_END, once=True):
        try:
            try:
                guard.connect()
                yield guard
            finally:
                guard.leave()
        except BaseException as error:
            failures = guard.leave()  # where the one request came just before the other line, for the first time
            if failures:
                said = f"{error} " if isinstance(error, UserError) else ""
                raise UserError(f"{said}{_not_left(failures)}") from error
            if isinstance(error, StoppedError):  # after which a process may end without another word
                logger.warning("%s: the robot was held and disconnected", error)
            raise
        if failures := guard.leave():
            raise UserError(_not_left(failures))


def _not_left(failures: Sequence[str]) -> str:
    return f"The robot was not left as it should be: {'; '.join(failures)}. Look at it."


def _said(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(". :")
