"""From observations to commands: history, mode, watchdog and limits.

Shape letter: A action size.
"""

import logging
from collections import Counter
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.deployment.runtime.clock import Clock
from pixio_robot.deployment.runtime.holding import HoldReason, NoActionError, hold_action
from pixio_robot.deployment.runtime.modes import MODES
from pixio_robot.deployment.runtime.observation import History, Observation, check_observation
from pixio_robot.deployment.runtime.policy import ChunkPolicy

logger = logging.getLogger(__name__)

# A camera may miss frames, but not so many control periods' worth.
_STALE_PERIODS = 5


@dataclass(frozen=True)
class Command:
    """What to do in this control period.

    Attributes:
        action: (A,) float32 in raw units, within the artifact's limits; None: send nothing.
        held: Why the robot holds; None when it goes on.
    """

    action: np.ndarray | None
    held: HoldReason | None = None


@dataclass
class ControlReport:
    """What happened since the controller was made.

    Attributes:
        steps: Control periods.
        clipped: Periods whose action was outside the limits.
        overruns: Periods that took longer than they should; counted by the control loop.
        holds: Periods without an action of the policy, by reason.
    """

    steps: int = 0
    clipped: int = 0
    overruns: int = 0
    holds: Counter[HoldReason] = field(default_factory=Counter)

    def summary(self) -> str:
        """Say it in one line."""
        holds = ", ".join(f"{number} × {reason}" for reason, number in self.holds.most_common())
        return (
            f"{self.steps} control periods, {self.overruns} of them too long, {self.clipped} actions clipped to their "
            f"limits; held {holds or 'never'}"
        )


class Controller:
    """Gives a robot's command in every control period, and lets it hold whenever something is wrong.

    Held and reported: a camera whose frame is older than five periods; an observation that does not fit; an inference
    that fails, or is later than its actions reach; actions that are not finite. After a hold everything is planned anew.
    """

    def __init__(
        self, policy: ChunkPolicy, mode: str, clock: Clock, rate: float | None = None, executor: Executor | None = None
    ) -> None:
        """Put a policy under control.

        Args:
            policy: An artifact here, or a server's.
            mode: `synchronous`, `ensemble` or `asynchronous`; see `pixio_robot.deployment.runtime.modes`.
            clock: What time it is.
            rate: Control rate in Hz, where the metadata do not say.
            executor: Where `asynchronous` infers; None makes one thread.

        Raises:
            UserError: There is no such mode, no control rate, or another than the demonstrations'.
        """
        self.metadata: Any = policy.metadata
        self.rate = control_rate(self.metadata, rate)
        self.report = ControlReport()
        if mode not in MODES:
            raise UserError(f"Unknown execution mode {mode!r}. {nearest_name(mode, MODES)}")
        self._mode = MODES[mode](policy, clock, 1 / self.rate, executor)
        self._history = History(self.metadata)
        limits = self.metadata["action"]
        self._minimum = np.asarray(limits["minimum"], dtype=np.float32)
        self._maximum = np.asarray(limits["maximum"], dtype=np.float32)
        self.reset()

    def reset(self) -> None:
        """Begin an episode."""
        self._history.reset()
        self._mode.reset()
        self._last: np.ndarray | None = None
        self._held: HoldReason | None = None
        self._begun = False

    def act(self, observation: Observation) -> Command:
        """Return the command of this control period.

        Raises:
            UserError: The first observation of the episode does not fit the artifact; nothing may be sent.
        """
        if not self._begun:
            check_observation(self.metadata, observation.values)
            self._begun = True
        self.report.steps += 1
        try:
            self._watch(observation)
            action = self._mode.next_action(self._history, observation.time)
        except NoActionError as error:
            return self._hold(error)
        if self._held is not None:
            logger.info("goes on after: %s", self._held)
            self._held = None
        limited = np.clip(action.astype(np.float32), self._minimum, self._maximum)
        self.report.clipped += bool((limited != action).any())
        self._last = limited
        return Command(limited)

    def _watch(self, observation: Observation) -> None:
        try:
            check_observation(self.metadata, observation.values)
            self._history.append(observation.values)
        except UserError as error:
            raise NoActionError(HoldReason.BAD_OBSERVATION, str(error)) from error
        for camera in self.metadata["cameras"]:
            age = observation.ages.get(camera["key"], 0.0)
            if not age <= _STALE_PERIODS / self.rate:
                raise NoActionError(HoldReason.STALE_CAMERA, f"the frame of {camera['key']} is {age:.2f} s old")

    def _hold(self, error: NoActionError) -> Command:
        self.report.holds[error.reason] += 1
        if error.reason is not HoldReason.WAITING:
            if error.reason is not self._held:  # once for each hold, not in every period of it
                logger.warning("holds: %s: %s", error.reason, error)
            self._mode.interrupt()
            self._history.forget()
        self._held = error.reason
        return Command(hold_action(self.metadata["action"], self._last), error.reason)


def control_rate(metadata: Any, rate: float | None) -> float:  # noqa: ANN401 (JSON)
    """Return the control rate in Hz.

    Raises:
        UserError: Neither the metadata nor the caller know it, or they differ.
    """
    trained: float | None = metadata["control_rate_hz"]
    wanted = trained if rate is None else rate
    if wanted is None or wanted <= 0:
        raise UserError("The artifact does not say its control rate: give one with rate=… (Hz).")
    if trained is not None and wanted != trained:
        raise UserError(f"The policy was trained at {trained} Hz, not {wanted} Hz: run it at that rate.")
    return float(wanted)
