import math

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from pixio_robot.common.statistics import bootstrap_interval, paired_p_value, wilson_interval


@pytest.mark.parametrize(
    ("successes", "trials"),
    [(0, 1), (1, 1), (0, 20), (20, 20), (50, 50), (47, 50), (13, 20), (1, 1000), (500, 1000)],
)
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_agrees_with_scipy(successes: int, trials: int, confidence: float) -> None:
    expected = binomtest(successes, trials).proportion_ci(confidence_level=confidence, method="wilson")
    assert wilson_interval(successes, trials, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_published_example() -> None:
    # R. G. Newcombe (1998), "Two-sided confidence intervals for the single proportion", Statistics in
    # Medicine 17, table I, method 3: 81 of 263 gives 0.2553 to 0.3662, 15 of 148 gives 0.0624 to 0.1605.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)


def test_ends_are_exact_where_nothing_or_everything_succeeds() -> None:
    for trials in range(1, 200):
        assert wilson_interval(0, trials)[0] == 0.0
        assert wilson_interval(trials, trials)[1] == 1.0


@pytest.mark.parametrize(("only_a", "only_b", "both"), [(0, 0, 5), (5, 0, 3), (8, 2, 10), (2, 8, 0), (10, 12, 28)])
def test_paired_test_agrees_with_scipys_binomial_test(only_a: int, only_b: int, both: int) -> None:
    successes_a = [True] * only_a + [False] * only_b + [True] * both
    successes_b = [False] * only_a + [True] * only_b + [True] * both
    differing = only_a + only_b
    expected = binomtest(only_a, differing).pvalue if differing else 1.0
    assert paired_p_value(successes_a, successes_b) == pytest.approx(expected, rel=1e-12)


def test_bootstrap_of_one_list_agrees_with_scipys() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 40)
    expected = bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=2).confidence_interval
    assert bootstrap_interval([values.tolist()]) == pytest.approx((expected.low, expected.high), abs=0.03)


def test_bootstrap_over_seeds_has_the_spread_of_its_two_levels() -> None:
    # Davison and Hinkley (1997), section 3.8: sampling groups and values within them with replacement has, for a groups
    # of b values, the variance SSB / (a² b) + SSW / (a² b²) around the mean, SSB and SSW as in an analysis of variance.
    groups = np.random.default_rng(2).normal(np.arange(12)[:, None], 3.0, (12, 5))
    between = 5 * ((groups.mean(axis=1) - groups.mean()) ** 2).sum()
    within = ((groups - groups.mean(axis=1, keepdims=True)) ** 2).sum()
    deviation = math.sqrt(between / (12**2 * 5) + within / (12**2 * 5**2))
    low, high = bootstrap_interval(groups.tolist())
    assert (high - low) / 2 == pytest.approx(1.96 * deviation, rel=0.04)
    assert (low + high) / 2 == pytest.approx(groups.mean(), abs=0.1)


def test_bootstrap_of_values_that_agree_within_seeds_is_that_of_the_seeds() -> None:
    assert bootstrap_interval([[0.0] * 25, [1.0] * 25]) == (0.0, 1.0)
    assert bootstrap_interval([[0.2], [0.4], [0.9]]) == pytest.approx(bootstrap_interval([[0.2, 0.4, 0.9]]), abs=0.02)
    assert bootstrap_interval([[0.5]]) == (0.5, 0.5)
    assert bootstrap_interval([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]) == bootstrap_interval(
        [[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]
    )
