"""Episodes are held out by task, at least one, and never the last of a task."""

from types import SimpleNamespace
from typing import Any

import pytest

from pixio_robot.training.held_out import held_out_episodes


def store(tasks: list[str]) -> Any:
    return SimpleNamespace(episode_tasks=tasks)


def test_every_task_gives_its_share() -> None:
    tasks = ["lift"] * 20 + ["push"] * 10 + ["once"]
    drawn = held_out_episodes(store(tasks), 0.2, None, seed=0)
    assert len(drawn) == len(set(drawn)) == 4 + 2
    assert [tasks[one] for one in drawn].count("push") == 2
    assert drawn == held_out_episodes(store(tasks), 0.2, None, seed=0) != held_out_episodes(store(tasks), 0.2, None, 1)
    assert max(held_out_episodes(store(tasks), 0.2, 10, seed=0)) < 10


@pytest.mark.parametrize(
    ("episodes", "share", "count"), [(6, 0.1, 1), (2, 0.1, 1), (1, 0.5, 0), (6, 0.0, 0), (4, 1.0, 3)]
)
def test_few_episodes_give_one_and_one_alone_none(episodes: int, share: float, count: int) -> None:
    assert len(held_out_episodes(store(["lift"] * episodes), share, None, seed=0)) == count
