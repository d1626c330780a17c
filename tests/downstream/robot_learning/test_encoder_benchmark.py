"""The table of encoders: counts, paired comparison, resuming, and clear words before anything slow."""

import dataclasses
import json
from pathlib import Path

import pytest
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.downstream.robot_learning.encoder_benchmark import BenchmarkPlan, benchmark_encoders, encoders_from
from pixio_robot.encoders import EncoderConfig
from pixio_robot.evaluation.record import Episode, EvaluationRecord
from pixio_robot.training import DemosConfig, EvaluationConfig, PolicyJob, TrainerConfig

ENV = {"type": "pixio_robosuite", "task": "Lift"}


def plan_in(folder: Path) -> BenchmarkPlan:
    job = PolicyJob(
        encoder=EncoderConfig(),
        policy={"type": "pixio_act"},
        env=ENV,
        demos=DemosConfig("scripted"),
        trainer=TrainerConfig(),
        evaluation=EvaluationConfig(episodes=4),
        output_root=str(folder / "outputs"),
    )
    encoders = encoders_from(
        {"ours": {"name": "pixio_tiny16"}, "random": {"name": "pixio_tiny16", "weights": "random"}}
    )
    return BenchmarkPlan(encoders, (10,), ("light",), (0, 1), job, folder / "benchmark")


def write_cell(plan: BenchmarkPlan, label: str, seed: int, condition: str, successes: list[bool]) -> None:
    episodes = tuple(
        Episode(seed=100000 + number, success=success, steps=3, total_reward=float(success), seconds=0.1)
        for number, success in enumerate(successes)
    )
    record = EvaluationRecord(episodes, ENV, "fast", {}, "somewhere", seconds=1.0, workers=1)
    file = plan.file(label, 10, seed, condition)
    record.save(file)
    plan.cell_job(label, 10, seed).save(file.with_name("job.yaml"))


def test_cells_that_are_there_are_counted_and_compared_episode_by_episode(tmp_path: Path) -> None:
    plan = plan_in(tmp_path)
    for seed in plan.seeds:
        for condition in ("none", "light"):
            write_cell(plan, "ours", seed, condition, [True, True, True, False])
        write_cell(plan, "random", seed, "none", [True, True, True, False])
        write_cell(plan, "random", seed, "light", [False, False, False, True])
    results = benchmark_encoders(plan, Console(quiet=True))  # nothing is missing, so nothing is trained
    ours, random = results["rows"]
    assert ours["conditions"]["light"]["successes"] == 6
    assert ours["conditions"]["light"]["episodes"] == 8
    assert ours["mean_perturbed"] == 0.75
    assert random["mean_perturbed"] == 0.25
    assert random["conditions"]["none"]["p_against_first"] == 1.0
    # Of eight episodes that differ, six are won by the first encoder: 2 (1 + 8 + 28) / 2^8.
    assert random["conditions"]["light"]["p_against_first"] == pytest.approx(74 / 256)
    assert json.loads((plan.folder / "results.json").read_text())["rows"] == results["rows"]
    assert random["mean_perturbed_by_seed"] == [0.25, 0.25]
    assert "| random | 10 | 75 | 25 | 25 (25, 25) |" in (plan.folder / "results.md").read_text()
    assert (plan.folder / "results.png").stat().st_size > 1000


def test_cells_of_other_settings_are_neither_counted_nor_overwritten(tmp_path: Path) -> None:
    plan = plan_in(tmp_path)
    write_cell(plan, "ours", 1, "none", [True, True, True, False])
    cell = plan.file("ours", 10, 1, "none")
    before = cell.read_bytes()
    alone = dataclasses.replace(plan, encoders={"ours": plan.encoders["ours"]}, perturbations=(), seeds=(1,))
    elsewhere = dataclasses.replace(plan.job, output_root="other", evaluation=EvaluationConfig(episodes=4, workers=7))
    # Kept: no result depends on folder and workers.
    benchmark_encoders(dataclasses.replace(alone, job=elsewhere), Console(quiet=True))
    longer = dataclasses.replace(plan.job, trainer=TrainerConfig(steps=5000))
    with pytest.raises(
        UserError, match=r"seed_1 was measured with trainer.steps=2500, and now it is 5000: give another"
    ):
        benchmark_encoders(dataclasses.replace(plan, job=longer), Console(quiet=True))
    cell.with_name("job.yaml").unlink()
    with pytest.raises(UserError, match="does not say with which settings"):
        benchmark_encoders(plan, Console(quiet=True))
    assert cell.read_bytes() == before
    assert not (tmp_path / "outputs").exists()  # and nothing was trained before it was found


def test_a_misspelt_perturbation_costs_no_training(tmp_path: Path) -> None:
    plan = dataclasses.replace(plan_in(tmp_path), perturbations=("lihgt",))
    with pytest.raises(UserError, match=r"did you mean 'light'\?"):
        benchmark_encoders(plan, Console(quiet=True))
    assert not (tmp_path / "outputs").exists()


def test_unknown_fields_and_empty_plans_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="weights"):
        encoders_from({"ours": {"nmae": "pixio_tiny16", "weight": "random"}, "other": {}})
    with pytest.raises(UserError, match="Nothing to compare"):
        benchmark_encoders(dataclasses.replace(plan_in(tmp_path), seeds=()), Console(quiet=True))
