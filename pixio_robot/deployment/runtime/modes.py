"""The three execution modes: how chunks of actions become one action for every control period.

O is a look at the robot, ▒ inference, a digit an action by its place in its chunk; chunks here have 4 actions of which 2
are executed (`executed_actions`), and time goes to the right, six columns for each control period.

`synchronous`: look, infer, execute, look again. What evaluation in training does, action for action. The robot waits for
every inference, after the last action was sent::

    look       O              O              O
    inference  ▒▒▒            ▒▒▒            ▒▒▒
    action        0     1        0     1        0     1

`ensemble`: infer in every period and average what all chunks so far say about it, the older the heavier
(exp(−0.01 i), i = 0 for the oldest; ACT, arXiv 2304.13705, section IV-A). Smooth, for policies whose inference is much
shorter than a period::

    look       O     O     O     O
    inference  ▒     ▒     ▒     ▒
    chunk 1     0     1     2     3
    chunk 2           0     1     2
    chunk 3                 0     1
    action      0     ø     ø     ø       ø: mean of its column

`asynchronous`: a thread computes the next chunk while the present one is executed. It begins early enough, judged by the
inference before it, to be done when `executed_actions` are over. A chunk is stamped with the time of its look and takes over
at the action whose time it is, so that the actions which passed during its inference are left out (0 and 1 of the
second chunk below). When it is late, the present chunk goes on to its last action, and then the robot holds::

    look       O           O           O           O
    inference  ▒▒▒▒        ▒▒▒▒▒▒▒▒▒   ▒▒▒▒▒▒▒▒▒   ▒▒▒▒▒▒▒▒▒
    chunk 1          0     1     2
    chunk 2                            2     3
    chunk 3                                        2     3
    robot      holds moves without a pause

A chunk whose look found the robot standing (the first, or the one after a hold) starts at its action 0, whenever it comes.

Shape letters: H action horizon, A action size.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.deployment.runtime.clock import Clock
from pixio_robot.deployment.runtime.holding import Held, HoldReason
from pixio_robot.deployment.runtime.observation import Arrays, History
from pixio_robot.deployment.runtime.policy import ChunkPolicy

_ENSEMBLE_DECAY = 0.01  # ACT's


class Mode(Protocol):
    """Decides the action of every control period."""

    def reset(self) -> None:
        """Begin an episode."""
        ...

    def interrupt(self) -> None:
        """The robot stands, whatever was planned: plan anew."""
        ...

    def next_action(self, history: History, time: float) -> np.ndarray:
        """Return the action (A,) of this period.

        Args:
            history: Up to this period's observation.
            time: The observation's time in seconds.

        Raises:
            Held: There is none.
        """
        ...


@dataclass(frozen=True)
class Plan:
    """A chunk of actions (H, A) and what it took, in seconds."""

    actions_HA: np.ndarray
    seconds: float


class Planner:
    """Asks a policy for chunks, numbers them, and lets through only what a robot may execute.

    A chunk that took longer than the time it covers is late: the robot is elsewhere by then.
    """

    def __init__(self, policy: ChunkPolicy, clock: Clock, period: float) -> None:
        self._policy, self._clock = policy, clock
        self.metadata = policy.metadata
        self.period = period
        self.horizon: int = self.metadata["action_horizon"]
        self.executed: int = min(self.metadata["executed_actions"] or self.horizon, self.horizon)
        self._shape = (self.horizon, self.metadata["action"]["size"])
        self._chunk = 0

    @property
    def patience(self) -> float:
        """The time that a chunk covers, in seconds: no inference may take longer."""
        return self.horizon * self.period

    def now(self) -> float:
        """Return the time."""
        return self._clock.now()

    def reset(self) -> None:
        """Number chunks from 0 again."""
        self._chunk = 0

    def prepare(self, history: History) -> Callable[[], Plan]:
        """Return the inference on the present history, to be called now or in a thread."""
        stacked, chunk = history.stacked(), self._chunk
        self._chunk += 1
        return lambda: self._infer(stacked, chunk)

    def _infer(self, stacked: Arrays, chunk: int) -> Plan:
        start = self._clock.now()
        try:
            actions_HA = self._policy.predict(stacked, chunk)
        except Exception as error:  # whatever it is, the robot must not go on
            raise Held(HoldReason.FAILED_INFERENCE, f"the policy failed ({type(error).__name__}: {error})") from error
        seconds = self._clock.now() - start
        if actions_HA.shape != self._shape:
            raise Held(HoldReason.BAD_ACTION, f"the policy gave actions {actions_HA.shape}, expected {self._shape}")
        if not np.isfinite(actions_HA).all():
            raise Held(HoldReason.BAD_ACTION, "the policy gave actions that are not finite")
        if seconds > self.patience:
            raise Held(
                HoldReason.LATE_INFERENCE,
                f"an inference took {seconds:.2f} s, longer than the {self.patience:.2f} s that its actions cover",
            )
        return Plan(actions_HA, seconds)


class Synchronous:
    """Look, infer, execute."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._queue: deque[np.ndarray] = deque()

    def reset(self) -> None:
        """Begin an episode."""
        self._planner.reset()
        self._queue.clear()

    def interrupt(self) -> None:
        """Plan anew."""
        self._queue.clear()

    def next_action(self, history: History, time: float) -> np.ndarray:
        """Return the next action of the chunk, or the first of a new one."""
        del time
        if not self._queue:
            self._queue.extend(self._planner.prepare(history)().actions_HA[: self._planner.executed])
        return self._queue.popleft()


class Ensemble:
    """Infer in every period and average."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._chunks: deque[np.ndarray] = deque(maxlen=planner.horizon)

    def reset(self) -> None:
        """Begin an episode."""
        self._planner.reset()
        self._chunks.clear()

    def interrupt(self) -> None:
        """Forget what was planned before the robot stood."""
        self._chunks.clear()

    def next_action(self, history: History, time: float) -> np.ndarray:
        """Return the weighted mean of what all chunks say about this period."""
        del time
        self._chunks.append(self._planner.prepare(history)().actions_HA)
        newest = len(self._chunks) - 1
        said = np.stack([chunk_HA[newest - age] for age, chunk_HA in enumerate(self._chunks)])
        weights = np.exp(-_ENSEMBLE_DECAY * np.arange(len(said), dtype=np.float32))
        return (weights @ said) / weights.sum()


@dataclass
class _Flight:
    """An inference that is under way."""

    future: Future[Plan]
    time: float  # of its observation
    started: float
    standing: bool  # the robot stood when it was observed, and stands until the chunk is there
    obsolete: bool = False


class Asynchronous:
    """The next chunk is computed in a thread while the present one is executed."""

    def __init__(self, planner: Planner, executor: Executor | None = None) -> None:
        self._planner = planner
        self._executor = executor or ThreadPoolExecutor(1, thread_name_prefix="inference")
        self._flight: _Flight | None = None
        self.reset()

    def reset(self) -> None:
        """Begin an episode."""
        self._planner.reset()
        self.interrupt()
        self._latency = 0.0

    def interrupt(self) -> None:
        """Plan anew: what is under way was seen before the robot stood."""
        self._chunk_HA: np.ndarray | None = None
        self._chunk_time = 0.0
        if self._flight is not None:
            self._flight.obsolete = True

    def next_action(self, history: History, time: float) -> np.ndarray:
        """Return the action of the newest chunk whose time it is."""
        self._land(time)
        place = self._place(time)
        if self._flight is None and (self._chunk_HA is None or place + self._lead >= self._planner.executed):
            self._start(history, time)
        if self._chunk_HA is None:
            raise self._waiting()
        if place >= self._planner.horizon:
            raise Held(
                HoldReason.LATE_INFERENCE, f"the chunk is used up, and the next took over {self._waited():.2f} s so far"
            )
        return self._chunk_HA[place]

    @property
    def _lead(self) -> int:
        """Periods that an inference takes, as far as the last one tells."""
        return math.ceil(self._latency / self._planner.period - 1e-6)  # exactly one period is one

    def _place(self, time: float) -> int:
        return round((time - self._chunk_time) / self._planner.period)

    def _start(self, history: History, time: float) -> None:
        future = self._executor.submit(self._planner.prepare(history))
        self._flight = _Flight(future, time, self._planner.now(), standing=self._chunk_HA is None)

    def _land(self, time: float) -> None:
        """Take over the chunk that is ready, if one is."""
        flight = self._flight
        if flight is None or not flight.future.done():
            return
        self._flight = None
        if flight.obsolete:
            return
        plan = flight.future.result()  # raises Held for an inference that failed
        self._latency = plan.seconds
        self._chunk_HA, self._chunk_time = plan.actions_HA, time if flight.standing else flight.time

    def _waited(self) -> float:
        return 0.0 if self._flight is None else self._planner.now() - self._flight.started

    def _waiting(self) -> Held:
        if self._waited() > self._planner.patience:
            return Held(HoldReason.LATE_INFERENCE, f"no chunk after {self._waited():.2f} s")
        return Held(HoldReason.WAITING, "no chunk yet")


MODES: Mapping[str, Any] = {"synchronous": Synchronous, "ensemble": Ensemble, "asynchronous": Asynchronous}


def make_mode(name: str, planner: Planner, executor: Executor | None) -> Mode:
    """Return a mode by its name.

    Args:
        name: `synchronous`, `ensemble` or `asynchronous`.
        planner: Where chunks come from.
        executor: Where `asynchronous` infers; None makes one thread.

    Raises:
        UserError: There is no such mode.
    """
    if name not in MODES:
        raise UserError(f"Unknown execution mode {name!r}. {nearest_name(name, MODES)}")
    return Asynchronous(planner, executor) if name == "asynchronous" else MODES[name](planner)
