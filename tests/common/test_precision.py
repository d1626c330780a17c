"""Whether bfloat16 pays on a CPU is measured, and said where it does not."""

import logging

import pytest

from pixio_robot.common.precision import bfloat16_slowdown, warn_of_slow_bfloat16


@pytest.mark.parametrize(("slowdown", "warns"), [(2.1, True), (0.5, False)])
def test_a_slow_bfloat16_is_said_with_what_to_set(slowdown, warns, caplog):
    with caplog.at_level(logging.WARNING):
        warn_of_slow_bfloat16("trainer.precision", slowdown)
    assert ("2.1 times as long" in caplog.text and "trainer.precision=float32 is faster" in caplog.text) == warns


def test_the_slowdown_is_a_ratio_of_two_times():
    assert 0.02 < bfloat16_slowdown(rounds=3) < 1000  # seen: 0.4 to 83
