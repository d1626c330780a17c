"""The number of threads that makes steps fastest is found, and found again when others come and go."""

import os

import pytest
import torch

from pixio_robot.engine import threads
from pixio_robot.engine.threads import ThreadTuner, tuner_for


class Clock:
    """Time that passes by steps, whose duration follows from the number of threads."""

    def __init__(self, seconds: dict[int, float]) -> None:
        self.seconds, self.now, self.threads, self.used = seconds, 0.0, 4, []

    def monotonic(self) -> float:
        return self.now

    def set_num_threads(self, number: int) -> None:
        self.threads = number

    def steps(self, tuner: ThreadTuner, count: int) -> None:
        for _ in range(count):
            duration = self.seconds[self.threads]
            self.now += duration
            self.used.append(self.threads)
            tuner.note(duration)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock({4: 0.1, 2: 0.15, 1: 0.2})
    monkeypatch.setattr(threads.time, "monotonic", clock.monotonic)
    monkeypatch.setattr(threads.torch, "set_num_threads", clock.set_num_threads)
    return clock


def test_free_cores_are_used(clock):
    clock.steps(ThreadTuner(4), 2000)
    assert clock.threads == 4
    assert clock.used[:40] == [4] * 40, "short runs are left alone"
    assert {1, 2} <= set(clock.used)
    assert clock.used.count(4) > 0.95 * len(clock.used)


def test_a_neighbour_is_given_way_to_and_its_end_is_noticed(clock):
    tuner = ThreadTuner(4)
    clock.steps(tuner, 100)
    clock.seconds = {4: 0.5, 2: 0.4, 1: 0.22}
    clock.steps(tuner, 60)
    assert clock.used[-30:] == [1] * 30
    clock.seconds = {4: 0.1, 2: 0.15, 1: 0.2}
    clock.steps(tuner, 800)
    assert clock.used[-200:].count(4) > 160


def test_a_number_that_was_asked_for_is_kept(clock, monkeypatch):
    monkeypatch.setattr(threads.torch, "get_num_threads", lambda: clock.threads)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    clock.steps(tuner_for(torch.device("cpu")), 100)
    assert len(set(clock.used)) == 3
    clock.used.clear()
    clock.steps(tuner_for(torch.device("cuda")), 100)
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "4")
    clock.steps(tuner_for(torch.device("cpu")), 100)
    assert set(clock.used) == {4}
