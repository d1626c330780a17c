"""What stands still, jumps or repeats in the signals and frames of demonstrations.

Letters of shape suffixes: T steps, D dimensions of a signal.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

Stretch = tuple[int, int]
"""First step, and one past the last."""

# Of the span of a dimension, what sensors and controllers jitter by, and what is motion beyond doubt.
_STILL_SHARE = 0.01
_MOVING_SHARE = 0.05
# A dimension that is never used spans nothing but its jitter: it is compared with the widest dimension of its signal.
_JITTER_SHARE = 1e-4

_USUAL_PERCENTILE = 99
_JUMP_FACTOR = 20


@dataclass(frozen=True)
class SignalScale:
    """How far each dimension of a signal reaches in a whole store; outliers count for nothing.

    Attributes:
        span_D: From the 1st to the 99th percentile of its values.
        usual_change_D: 99th percentile of its changes from step to step, without their sign.
        jump_D: A greater change is a jump: 20 usual changes, but no less than half of the span. A dimension that is nearly
            always at one of the ends of its span, such as a gripper, switches between them, and there it is no less
            than 1.25 spans; one with no more than two values is a flag and never jumps.
    """

    span_D: np.ndarray
    usual_change_D: np.ndarray
    jump_D: np.ndarray

    @property
    def still_within(self) -> np.ndarray:
        """Each dimension stands still while its values stay within this."""
        return np.maximum(_STILL_SHARE * self.span_D, self._jitter)

    @property
    def moving_beyond(self) -> np.ndarray:
        """Each dimension moves for certain while its values spread over more than this."""
        return np.maximum(_MOVING_SHARE * self.span_D, self._jitter)

    @property
    def _jitter(self) -> float:
        return _JITTER_SHARE * float(self.span_D.max(initial=0.0))


def measure_scale(values_TD: np.ndarray, episode_ends: np.ndarray) -> SignalScale:
    """Measure a signal over a store; values that are not finite are left out."""
    is_within_episode = np.ones(max(0, len(values_TD) - 1), bool)
    is_within_episode[episode_ends[:-1] - 1] = False
    columns = [_measure_dimension(column, is_within_episode) for column in values_TD.T]
    span_D, usual_change_D, jump_D = np.array(columns, np.float64).reshape(-1, 3).T
    return SignalScale(span_D, usual_change_D, jump_D)


def _measure_dimension(values_T: np.ndarray, is_within_episode: np.ndarray) -> tuple[float, float, float]:
    values_T = values_T.astype(np.float64)
    finite = values_T[np.isfinite(values_T)]
    changes = _changes(values_T)[is_within_episode]
    changes = changes[np.isfinite(changes)]
    if not len(finite) or not len(changes):
        return 0.0, 0.0, np.inf
    # Values that occur, away from the extremes: in a short recording, interpolation would bring outliers in.
    low, high = float(np.percentile(finite, 1, method="higher")), float(np.percentile(finite, 99, method="lower"))
    span = max(0.0, high - low)
    usual_change = float(np.percentile(changes, _USUAL_PERCENTILE, method="lower"))
    if len(np.unique(finite)) <= 2:
        return span, usual_change, np.inf
    is_in_the_middle = np.abs(finite - (low + high) / 2) < span / 4
    floor = (1.25 if is_in_the_middle.mean() < 0.02 else 0.5) * span
    return span, usual_change, max(_JUMP_FACTOR * usual_change, floor)


@dataclass(frozen=True)
class Jump:
    """A jump of a signal.

    Attributes:
        first: The last step before it.
        last: The first step after it: the next one, unless jump follows jump.
        dimension: The dimension that jumps farthest, compared with what it usually does.
        change: How far, in the signal's own unit.
    """

    first: int
    last: int
    dimension: int
    change: float


def find_jumps(values_TD: np.ndarray, scale: SignalScale) -> list[Jump]:
    """Find the jumps in an episode."""
    changes = _changes(values_TD.astype(np.float64))
    is_jump = np.isfinite(changes) & (changes > scale.jump_D)
    excess = np.divide(changes, scale.jump_D, out=is_jump.astype(np.float64), where=is_jump & (scale.jump_D > 0))
    jumps = []
    for start, stop in stretches(np.any(is_jump, axis=1)):
        step, dimension = np.unravel_index(np.argmax(excess[start:stop]), excess[start:stop].shape)
        jumps.append(Jump(start, stop, int(dimension), float(changes[start + step, dimension])))
    return jumps


def find_still(values_TD: np.ndarray, tolerance_D: np.ndarray, n_steps: int) -> list[Stretch]:
    """Find the stretches of an episode whose every `n_steps` steps stay within a tolerance in all dimensions."""
    if len(values_TD) < n_steps:
        return []
    windows = np.lib.stride_tricks.sliding_window_view(values_TD, n_steps, axis=0)
    with np.errstate(invalid="ignore"):
        is_still = (windows.max(axis=-1) - windows.min(axis=-1) <= tolerance_D).all(axis=1)
    covered_T = np.zeros(len(values_TD), bool)
    for first in np.flatnonzero(is_still):
        covered_T[first : first + n_steps] = True
    return stretches(covered_T)


def is_moving(values_TD: np.ndarray, scale: SignalScale) -> bool:
    """Whether a signal moves for certain, in some dimension."""
    finite = np.isfinite(values_TD)
    highest = values_TD.max(axis=0, where=finite, initial=-np.inf)
    lowest = values_TD.min(axis=0, where=finite, initial=np.inf)
    return bool((highest - lowest > scale.moving_beyond).any())


def find_repeats(blocks: Iterable[np.ndarray], n_steps: int) -> list[Stretch]:
    """Find stretches of at least `n_steps` bit-identical frames in an episode that is read block by block."""
    is_repeat = []
    before = None
    for block in blocks:
        frames = block.reshape(len(block), -1)
        is_repeat.append([before is not None and bool((frames[0] == before).all())])
        is_repeat.append((frames[1:] == frames[:-1]).all(axis=1))
        before = frames[-1]
    repeated = [(start - 1, stop) for start, stop in stretches(np.concatenate(is_repeat).astype(bool))]
    return [(start, stop) for start, stop in repeated if stop - start >= n_steps]


def stretches(holds_T: np.ndarray) -> list[Stretch]:
    """Return where a condition holds."""
    edges = np.diff(np.concatenate([[False], holds_T, [False]]).astype(np.int8))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return [(int(start), int(stop)) for start, stop in zip(starts, stops, strict=True)]


def _changes(values: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.abs(np.diff(values, axis=0))
