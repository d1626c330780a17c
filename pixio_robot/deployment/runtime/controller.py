"""From observations to commands: history, mode, what may be believed, and limits.

Shape letter: A action size.
"""

import logging
import math
from collections import Counter
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.deployment.runtime.clock import Clock
from pixio_robot.deployment.runtime.holding import HoldReason, NoActionError
from pixio_robot.deployment.runtime.limits import Limited, Limits
from pixio_robot.deployment.runtime.modes import MODES
from pixio_robot.deployment.runtime.observation import (
    History,
    NotReadError,
    Observation,
    check_observation,
    task_number,
)
from pixio_robot.deployment.runtime.policy import ChunkPolicy

logger = logging.getLogger(__name__)

# A camera may miss frames, but not so many control periods' worth; at high rates, not for so long.
_STALE_PERIODS, _STALE_SECONDS = 5, 0.2
# After so many periods in which nothing was asked for, what was planned before is not continued.
_GAP_PERIODS = 2
# A robot that cannot be read for so long will not be read again.
_UNREADABLE_SECONDS = 1.0


@dataclass(frozen=True)
class Command:
    """What to do in this control period.

    Attributes:
        action: (A,) float32 in raw units, within all limits; None: send nothing.
        held: Why the robot holds; None when it goes on.
        sentence: What the log says of a hold.
        limited: How the limits changed what the policy gave; None for a hold.
    """

    action: np.ndarray | None
    held: HoldReason | None = None
    sentence: str = ""
    limited: Limited | None = None


@dataclass
class ControlReport:
    """What happened since the controller was made.

    Attributes:
        steps: Control periods.
        clipped: Periods whose action was outside of the range.
        slowed: Periods whose action was further away than a step.
        overruns: Periods that took longer than they should; counted by the control loop.
        holds: Periods without an action of the policy, by reason, and holds between them by the watchdog.
    """

    steps: int = 0
    clipped: int = 0
    slowed: int = 0
    overruns: int = 0
    holds: Counter[HoldReason] = field(default_factory=Counter)

    @property
    def troubled(self) -> int:
        """Periods in which the robot held for another reason than waiting for a chunk."""
        between = (HoldReason.WAITING, HoldReason.NO_COMMAND)
        return sum(number for reason, number in self.holds.items() if reason not in between)

    def summary(self) -> str:
        """Say it in one line."""
        holds = ", ".join(f"{number} × {reason}" for reason, number in self.holds.most_common())
        return (
            f"{self.steps} control periods, {self.overruns} of them too long, {self.clipped} actions clipped to their "
            f"limits and {self.slowed} to the largest step; held {holds or 'never'}"
        )


class Controller:
    """Gives a robot's command in every control period, and lets it hold whenever something is wrong.

    Held and reported: a robot that could not be read, or whose time goes back; a camera whose frame is
    older than five periods; an observation that does not fit; an inference that fails, or is later than its actions reach;
    actions that are not finite. After a hold, and after a gap of more than two periods, everything is planned anew.
    """

    def __init__(
        self,
        policy: ChunkPolicy,
        mode: str,
        clock: Clock,
        rate: float | None = None,
        executor: Executor | None = None,
        limits: Limits | None = None,
    ) -> None:
        """Put a policy under control.

        Args:
            policy: An artifact here, or a server's.
            mode: `synchronous`, `ensemble` or `asynchronous`; see `pixio_robot.deployment.runtime.modes`.
            clock: What time it is.
            rate: Control rate in Hz, where the metadata do not say.
            executor: Where the policy infers; None makes one thread.
            limits: Of the commands; None keeps the artifact's ranges alone.

        Raises:
            UserError: There is no such mode, no control rate, or another than the demonstrations'.
        """
        self.metadata: Any = policy.metadata
        self.rate = control_rate(self.metadata, rate)
        self.report = ControlReport()
        if mode not in MODES:
            raise UserError(f"Unknown execution mode {mode!r}. {nearest_name(mode, MODES)}")
        self._clock = clock
        self._mode = MODES[mode](policy, clock, 1 / self.rate, executor)
        self._history = History(self.metadata)
        self.limits = Limits(self.metadata) if limits is None else limits
        self._begin(0)

    def reset(self, seed: int = 0, task: str | None = None) -> None:
        """Begin an episode.

        Args:
            seed: Decides what a policy that samples starts from.
            task: What a policy of several tasks is to do.

        Raises:
            UserError: The policy does several tasks, and this is none of them.
        """
        self._history.reset(task_number(self.metadata, task))
        self._begin(seed)

    def _begin(self, seed: int) -> None:
        self._mode.reset(seed)
        self.limits.reset()
        self._held: HoldReason | None = None
        self._begun = False
        self._unread = 0
        self._seen = self._given = -math.inf

    def act(self, observation: Observation) -> Command:
        """Return the command of this control period.

        Raises:
            UserError: The first observation of the episode does not fit the artifact; nothing may be sent.
        """
        if not self._begun:
            check_observation(self.metadata, observation.values)
            self._begun = True
        self.report.steps += 1
        self._unread = 0
        started = self._clock.now()
        try:
            self._watch(observation)
            action = self._mode.next_action(self._history, observation.time)
            limited = self.limits.apply(action.astype(np.float32))
        except NoActionError as error:
            return self._hold(error)
        finally:
            self._given = self._seen + self._clock.now() - started
        if self._held is not None:
            logger.info("goes on after: %s", self._held)
            self._held = None
        self.report.clipped += bool(limited.clipped.any())
        self.report.slowed += bool(limited.slowed.any())
        return Command(limited.sent, limited=limited)

    def act_unseen(self, error: NotReadError) -> Command:
        """Return the command of a control period in which the robot could not be read.

        Raises:
            UserError: It could not be read for a second.
        """
        self.report.steps += 1
        self._unread += 1
        if self._unread > max(2.0, _UNREADABLE_SECONDS * self.rate):
            raise UserError(
                f"The robot could not be read for {self._unread / self.rate:.1f} s ({error}); its cables or its power may "
                "be why: look at both, and start again."
            )
        return self._hold(NoActionError(HoldReason.UNREADABLE, str(error)))

    def _watch(self, observation: Observation) -> None:
        time, before = observation.time, self._seen
        self._seen = time if math.isfinite(time) else before
        if not time >= before:
            raise NoActionError(HoldReason.BAD_OBSERVATION, f"the robot's time went from {before:.3f} to {time:.3f} s")
        if time - self._given > (_GAP_PERIODS + 0.5) / self.rate:
            self._mode.interrupt()
            self._history.forget()
        try:
            check_observation(self.metadata, observation.values)
            self._history.append(observation.values)
        except UserError as error:
            raise NoActionError(HoldReason.BAD_OBSERVATION, str(error)) from error
        for camera in self.metadata["cameras"]:
            age = observation.ages.get(camera["key"], 0.0)
            if not age <= max(_STALE_PERIODS / self.rate, _STALE_SECONDS):
                raise NoActionError(HoldReason.STALE_CAMERA, f"the frame of {camera['key']} is {age:.2f} s old")
        state = self.metadata["state"]
        self.limits.begin(None if state is None else observation.values[state["key"]])

    def _hold(self, error: NoActionError) -> Command:
        self.report.holds[error.reason] += 1
        if error.reason is not HoldReason.WAITING:
            if error.reason is not self._held:  # once for each hold, not in every period of it
                logger.warning("holds: %s: %s", error.reason, error)
            self._mode.interrupt()
            self._history.forget()
        self._held = error.reason
        return Command(self.limits.hold(), error.reason, str(error))


def control_rate(metadata: Any, rate: float | None) -> float:  # noqa: ANN401 (JSON)
    """Return the control rate in Hz.

    Raises:
        UserError: Neither the metadata nor the caller know it, or they differ.
    """
    trained: float | None = metadata["control_rate_hz"]
    wanted = trained if rate is None else rate
    if wanted is None or not 0 < wanted < math.inf:
        raise UserError("The artifact does not say its control rate: give one with rate=… (Hz).")
    if trained is not None and wanted != trained:
        raise UserError(f"The policy was trained at {trained} Hz, not {wanted} Hz: run it at that rate.")
    return float(wanted)
