import pytest
from scipy.stats import binomtest

from pixio_robot.common.statistics import paired_p_value, wilson_interval


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
