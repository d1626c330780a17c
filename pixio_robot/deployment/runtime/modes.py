"""The three execution modes: how chunks of actions become one action for every control period.

O is a look at the robot, ▒ inference, a digit an action by its place in its chunk; chunks here have 4 actions of which 2
are executed (`executed_actions`), and time goes to the right, six columns for each control period.

In all of them a thread infers, and none waits for it longer than its actions reach: an inference that hangs holds the robot, and
so does everything later until it is over. After a gap in which nobody asked for actions, what was planned is forgotten.

`synchronous`: look, infer, execute, look again. What evaluation in training does, action for action. The robot waits for
every inference, after the last action was sent; if that takes long, its guard holds it meanwhile::

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

Shape letters: N chunks, H action horizon, A action size.
"""

import math
from abc import ABC, abstractmethod
from collections import deque
from concurrent.futures import Executor, Future
from dataclasses import dataclass

import numpy as np

from pixio_robot.deployment.runtime.clock import Clock
from pixio_robot.deployment.runtime.holding import HoldReason, NoActionError
from pixio_robot.deployment.runtime.observation import Arrays, History
from pixio_robot.deployment.runtime.policy import ChunkPolicy
from pixio_robot.deployment.runtime.worker import Worker

_ENSEMBLE_DECAY = 0.01  # ACT's


@dataclass
class _Flight:
    """An inference that is under way."""

    future: Future[tuple[np.ndarray, float]]
    time: float  # of its observation
    started: float
    standing: bool  # the robot stood when it was observed, and stands until the chunk is there
    obsolete: bool = False


class Mode(ABC):
    """Asks a policy for chunks and decides the action of every control period.

    One inference is under way at a time; it runs in a thread, whatever the mode.
    """

    _flight: _Flight | None = None

    def __init__(self, policy: ChunkPolicy, clock: Clock, period: float, executor: Executor | None = None) -> None:
        """Put a policy under a clock, with control periods of some seconds."""
        self._policy, self._clock, self._period = policy, clock, period
        self._horizon: int = policy.metadata["action_horizon"]
        self._executed: int = min(policy.metadata["executed_actions"] or self._horizon, self._horizon)
        self._patience = self._horizon * period  # the time that a chunk covers, in seconds
        self._executor = executor or Worker("inference")
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Begin an episode, whose seed decides what a policy that samples starts from."""
        self._num_chunks, self._seed = 0, seed
        self.interrupt()

    def interrupt(self) -> None:
        """Forget what was planned, since the robot stands: plan anew. What is under way was seen before it stood."""
        if self._flight is not None:
            self._flight.obsolete = True
        self._forget()

    @abstractmethod
    def _forget(self) -> None:
        """Forget the chunks that there are."""

    @abstractmethod
    def next_action(self, history: History, time: float) -> np.ndarray:
        """Return the action (A,) of this period.

        Args:
            history: Up to this period's observation.
            time: The observation's time in seconds.

        Raises:
            NoActionError: There is none.
        """

    def _start(self, history: History, time: float, standing: bool = True) -> _Flight:
        """Begin an inference on the present history."""
        stacked, chunk = history.stacked(), self._num_chunks
        self._num_chunks += 1
        future = self._executor.submit(self._infer, stacked, chunk, self._seed)
        self._flight = _Flight(future, time, self._clock.now(), standing)
        return self._flight

    def _chunk_now(self, history: History, time: float) -> np.ndarray:
        """Return the actions (H, A) for the present history, waiting for them."""
        flight = self._flight
        if flight is not None and not flight.future.done():
            waited = self._clock.now() - flight.started
            raise NoActionError(HoldReason.LATE_INFERENCE, f"an inference is not over after {waited:.2f} s")
        flight = self._start(history, time)
        if not self._clock.wait(flight.future, self._patience):
            sentence = f"no chunk within the {self._patience:.2f} s that its actions cover"
            raise NoActionError(HoldReason.LATE_INFERENCE, sentence)
        self._flight = None
        return flight.future.result()[0]

    def _infer(self, stacked: Arrays, chunk: int, seed: int) -> tuple[np.ndarray, float]:
        """Return actions (H, A) that a robot may execute and the seconds that they took, or raise NoActionError."""
        start = self._clock.now()
        try:
            actions_HA = self._policy.predict(stacked, chunk, seed)
        except BaseException as error:  # whatever it is, the robot must not go on
            sentence = f"the policy failed ({type(error).__name__}: {error})"
            raise NoActionError(HoldReason.FAILED_INFERENCE, sentence) from error
        seconds, shape = self._clock.now() - start, (self._horizon, self._policy.metadata["action"]["size"])
        if not isinstance(actions_HA, np.ndarray) or actions_HA.dtype.kind != "f" or actions_HA.shape != shape:
            found = f"{actions_HA.dtype} {actions_HA.shape}" if isinstance(actions_HA, np.ndarray) else type(actions_HA)
            sentence = f"the policy gave actions {found}, expected {shape}"
            raise NoActionError(HoldReason.BAD_ACTION, sentence)
        if not np.isfinite(actions_HA).all():
            raise NoActionError(HoldReason.BAD_ACTION, "the policy gave actions that are not finite")
        if seconds > self._patience:
            raise NoActionError(
                HoldReason.LATE_INFERENCE,
                f"an inference took {seconds:.2f} s, longer than the {self._patience:.2f} s that its actions cover",
            )
        return actions_HA, seconds


class Synchronous(Mode):
    """Look, infer, execute."""

    def _forget(self) -> None:
        self._queue: deque[np.ndarray] = deque()

    def next_action(self, history: History, time: float) -> np.ndarray:
        """Return the next action of the chunk, or the first of a new one."""
        if not self._queue:
            self._queue.extend(self._chunk_now(history, time)[: self._executed])
        return self._queue.popleft()


class Ensemble(Mode):
    """Infer in every period and average."""

    def _forget(self) -> None:
        self._chunks: deque[tuple[float, np.ndarray]] = deque(maxlen=self._horizon)

    def next_action(self, history: History, time: float) -> np.ndarray:
        """Return the weighted mean of what all chunks say about this period."""
        self._chunks.append((time, self._chunk_now(history, time)))
        places = ((round((time - seen) / self._period), chunk_HA) for seen, chunk_HA in self._chunks)
        said_NA = np.stack([chunk_HA[place] for place, chunk_HA in places if 0 <= place < self._horizon])
        weights = np.exp(-_ENSEMBLE_DECAY * np.arange(len(said_NA), dtype=np.float32))
        return (weights @ said_NA) / weights.sum()


class Asynchronous(Mode):
    """The next chunk is computed in a thread while the present one is executed."""

    def reset(self, seed: int = 0) -> None:
        """Begin an episode."""
        super().reset(seed)
        self._latency = 0.0

    def _forget(self) -> None:
        self._chunk_HA: np.ndarray | None = None
        self._chunk_time = 0.0

    def next_action(self, history: History, time: float) -> np.ndarray:
        """Return the action of the newest chunk whose time it is."""
        self._land(time)
        place = round((time - self._chunk_time) / self._period)
        lead = math.ceil(
            self._latency / self._period - 1e-6
        )  # periods of the last inference; exactly one period is one
        if self._flight is None and (self._chunk_HA is None or place + lead >= self._executed):
            self._start(history, time, standing=self._chunk_HA is None)
        waited = 0.0 if self._flight is None else self._clock.now() - self._flight.started
        if self._chunk_HA is None:
            if waited > self._patience:
                raise NoActionError(HoldReason.LATE_INFERENCE, f"no chunk after {waited:.2f} s")
            raise NoActionError(HoldReason.WAITING, "no chunk yet")
        if not 0 <= place < self._horizon:
            sentence = f"the chunk is used up, and the next took over {waited:.2f} s so far"
            raise NoActionError(HoldReason.LATE_INFERENCE, sentence)
        return self._chunk_HA[place]

    def _land(self, time: float) -> None:
        """Take over the chunk that is ready, if one is."""
        flight = self._flight
        if flight is None or not flight.future.done():
            return
        self._flight = None
        if not flight.obsolete:
            self._chunk_HA, self._latency = flight.future.result()  # raises NoActionError for one that failed
            self._chunk_time = time if flight.standing else flight.time


MODES: dict[str, type[Mode]] = {"synchronous": Synchronous, "ensemble": Ensemble, "asynchronous": Asynchronous}
