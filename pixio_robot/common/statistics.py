"""What a count of successes says about the success rate behind it."""

from collections.abc import Sequence


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
    from scipy.stats import binomtest  # takes most of a second to import

    low, high = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return float(low), float(high)


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
    from scipy.stats import binomtest

    only_a = sum(a and not b for a, b in zip(successes_a, successes_b, strict=True))
    only_b = sum(b and not a for a, b in zip(successes_a, successes_b, strict=True))
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
