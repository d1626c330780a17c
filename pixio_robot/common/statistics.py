"""What a count of successes says about the success rate behind it."""

import math
from collections.abc import Sequence
from statistics import NormalDist


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a success rate, both ends in [0, 1].

    Unlike the normal approximation it keeps its coverage for few trials and for rates near 0 and 1, where
    evaluations of policies live: 50 successes of 50 give [0.929, 1], not [1, 1].

    Args:
        successes: Number of successful trials.
        trials: Number of trials, at least 1.
        confidence: Coverage of the interval, in (0, 1).

    Source: E. B. Wilson (1927), "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association 22, 209-212; without continuity correction.
    """
    assert 0 <= successes <= trials > 0
    assert 0 < confidence < 1
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = successes / trials
    centre = (rate + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half_width = z / (1 + z**2 / trials) * math.sqrt(rate * (1 - rate) / trials + z**2 / (4 * trials**2))
    # At 0 and at `trials` successes the formula gives 0 and 1 up to rounding: keep the bounds exact there.
    low = 0.0 if successes == 0 else centre - half_width
    high = 1.0 if successes == trials else centre + half_width
    return low, high


def paired_p_value(successes_a: Sequence[bool], successes_b: Sequence[bool]) -> float:
    """Return the two-sided exact McNemar p-value that two policies succeed equally often on the same episodes.

    Only the episodes on which the two differ count: if neither policy is better, each of them is won by either
    with probability 1/2.

    Args:
        successes_a: Outcome of every episode under one policy.
        successes_b: Outcomes of the same episodes (same seeds, same order) under the other.

    Source: Q. McNemar (1947), "Note on the sampling error of the difference between correlated proportions",
    Psychometrika 12, 153-157, with the binomial distribution in place of its approximation.
    """
    assert len(successes_a) == len(successes_b)
    only_a = sum(a and not b for a, b in zip(successes_a, successes_b, strict=True))
    only_b = sum(b and not a for a, b in zip(successes_a, successes_b, strict=True))
    differing = only_a + only_b
    tail = sum(math.comb(differing, wins) for wins in range(min(only_a, only_b) + 1)) / 2**differing
    return min(1.0, 2 * tail)
