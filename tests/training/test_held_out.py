"""Episodes are held out by task, at least one, and never the last of a task."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from toy_job import make_demonstrations, toy_job

from pixio_robot.training.held_out import held_out_episodes
from pixio_robot.training.job import run_policy_job


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
    ("episodes", "share", "count"), [(5, 0.1, 1), (6, 0.1, 2), (2, 0.1, 1), (1, 0.5, 0), (6, 0.0, 0), (4, 1.0, 3)]
)
def test_few_episodes_give_one_and_one_alone_none(episodes: int, share: float, count: int) -> None:
    assert len(held_out_episodes(store(["lift"] * episodes), share, None, seed=0)) == count


def test_a_run_without_a_simulation_judges_what_it_was_not_trained_on(tmp_path: Path) -> None:
    store = make_demonstrations(tmp_path / "toy.zarr")
    job = toy_job(tmp_path / "toy.zarr", tmp_path / "runs")
    evaluation = replace(job.evaluation, episodes=0, held_out=0.5)
    job = replace(job, evaluation=evaluation, trainer=replace(job.trainer, evaluate_every=0))
    console = Console(record=True, width=200)
    assert run_policy_job(job, console=console) is None
    said = console.export_text()
    (run,) = (tmp_path / "runs" / "train_policy").iterdir()
    record = json.loads((run / "held_out.json").read_text())
    assert f"held out of training: episodes {', '.join(map(str, record['episodes']))}" in said
    assert 0 < len(record["episodes"]) < store.num_episodes
    assert len(record["error"]) == len(record["names"]) == 2
    assert "open-loop error" in said
    assert "held out worst" in " ".join(path.name for path in (run / "pictures").iterdir())
    page = (run / "report.html").read_text()
    assert "Held out worst" in page and "open-loop error" in page and "no evaluation yet" not in page
