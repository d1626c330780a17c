"""One check of time stamps for every reader: do the steps of an episode lie as far apart as their rate says?

Clocks of real robots jitter. What matters is that no step is missing or comes twice (an interval off by more than half a
step), and that the rate is right (an episode neither longer nor shorter than its steps make it).

Letters of shape suffixes: T steps.
"""

from dataclasses import dataclass

import numpy as np

# Of a step: an interval off by more has lost a step or has one too many; a position off by more is another step's.
_INTERVAL_TOLERANCE = 0.5
# Of a step, for half of all intervals: beyond it they are another rate's.
_RATE_TOLERANCE = 0.3
# Of an episode's length: clocks that run apart by less do not make it another rate.
_DRIFT_TOLERANCE = 0.02


@dataclass(frozen=True)
class ClockFault:
    """What is wrong with the time stamps of an episode.

    Attributes:
        kind: `number` (one is not finite), `uneven`, `rate` or `offset`.
        first: The first step concerned.
        last: The last step concerned.
        sentence: What it is, to follow the name of what holds the time stamps.
    """

    kind: str
    first: int
    last: int
    sentence: str


def clock_fault(times_T: np.ndarray, fps: float, *, from_zero: bool = False) -> ClockFault | None:
    """Compare the time stamps of an episode with its rate.

    Args:
        times_T: Seconds.
        fps: Hz.
        from_zero: Whether they are places in a recording that begins at 0, and so must each be that of its step.
    """
    times_T = times_T.astype(np.float64)
    last = len(times_T) - 1
    bad = np.flatnonzero(~np.isfinite(times_T))
    if len(bad):
        return ClockFault("number", int(bad[0]), int(bad[-1]), f"is not a number at step {bad[0]}")
    intervals = np.diff(times_T)
    period = float(np.median(intervals)) if last else 1 / fps
    if last and abs(period * fps - 1) > _RATE_TOLERANCE:
        return _wrong_rate(times_T, fps)
    odd = np.flatnonzero(np.abs(intervals * fps - 1) > _INTERVAL_TOLERANCE)
    if len(odd):
        first, many = int(odd[0]), f"; {len(odd)} of {last} intervals are uneven"
        return ClockFault(
            "uneven",
            first,
            int(odd[-1]) + 1,
            f"advances by {intervals[first]:.4g} s after step {first} instead of {1 / fps:.4g} s{many}",
        )
    drift = abs((times_T[-1] - times_T[0]) * fps - last)
    if drift > (_INTERVAL_TOLERANCE if from_zero else max(_INTERVAL_TOLERANCE, _DRIFT_TOLERANCE * last)):
        return _wrong_rate(times_T, fps)
    if from_zero and np.abs(times_T * fps - np.arange(last + 1)).max() > _INTERVAL_TOLERANCE:
        return ClockFault("offset", 0, last, f"begins at {times_T[0]:.4g} s instead of 0 s")
    return None


def _wrong_rate(times_T: np.ndarray, fps: float) -> ClockFault:
    last = len(times_T) - 1
    period = (times_T[-1] - times_T[0]) / last
    return ClockFault("rate", 0, last, f"advances by {period:.4g} s a step, but {fps:g} fps means {1 / fps:.4g} s")
