"""What a count of successes, or a handful of values, says about the rate or mean behind it."""

from collections.abc import Sequence

import numpy as np


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


def paired_sign_flips(values_a: Sequence[float], values_b: Sequence[float]) -> float:
    """Return the two-sided p-value that two policies have equal means on the same episodes, by flipping signs of differences.

    Exact for few pairs; of many, as many flips are drawn as scipy draws by default, the same every time.

    Args:
        values_a: A value of every episode under one policy.
        values_b: Values of the same episodes (same order) under the other.

    Source: R. A. Fisher (1935), "The Design of Experiments", section 21.
    """
    from scipy.stats import permutation_test

    differences = np.subtract(values_a, values_b)
    if len(differences) < 2:  # one pair is as likely as its opposite
        return 1.0
    result = permutation_test((differences,), np.mean, permutation_type="samples", rng=np.random.default_rng(0))
    return float(result.pvalue)


def bootstrap_interval(
    values_by_seed: Sequence[Sequence[float]], confidence: float = 0.95, resamples: int = 10_000
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean over seeds of means within a seed.

    Seeds are drawn with replacement, then as many values within each: episodes of one training are more alike than
    episodes of two, and an interval that takes them for one sample is too narrow. One seed alone says nothing
    about seeds: its interval is of its values only. For values that are not nested, give one list of them. The same
    values give the same interval.

    Args:
        values_by_seed: For each seed its values, at least one, all finite.
        confidence: Coverage of the interval, in (0, 1).
        resamples: Number of times the mean is drawn.

    Source: A. C. Davison, D. V. Hinkley (1997), "Bootstrap Methods and their Application", section 3.8.
    """
    assert len(values_by_seed) and all(len(values) for values in values_by_seed)
    generator = np.random.default_rng(0)
    means_RS = np.stack([_resampled_means(values, resamples, generator) for values in values_by_seed], axis=1)
    seeds_RS = generator.integers(len(values_by_seed), size=means_RS.shape)
    # The same seed drawn twice brings other values each time.
    drawn_RS = means_RS[
        generator.permuted(np.tile(np.arange(resamples)[:, None], len(values_by_seed)), axis=0), seeds_RS
    ]
    low, high = np.quantile(drawn_RS.mean(axis=1), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _resampled_means(values: Sequence[float], resamples: int, generator: np.random.Generator) -> np.ndarray:
    values_N = np.asarray(values, np.float64)
    assert np.isfinite(values_N).all()
    draws = (generator.integers(len(values_N), size=len(values_N)) for _ in range(resamples))
    return np.array([values_N[draw_N].mean() for draw_N in draws])
