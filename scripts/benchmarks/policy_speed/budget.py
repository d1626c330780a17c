"""Success of both sides after the same minutes of training on the same demonstrations."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lerobot.envs import EnvConfig
from rich.console import Console

from pixio_robot.common.progress import phase_progress
from pixio_robot.common.statistics import paired_p_value
from pixio_robot.common.versions import software_versions
from pixio_robot.demos import DemoStore
from pixio_robot.encoders import EncoderConfig
from pixio_robot.environments import describe_env
from pixio_robot.evaluation.record import EvaluationRecord
from pixio_robot.evaluation.rollouts.evaluate import evaluate_policy
from pixio_robot.training.config import TrainerConfig
from policy_speed.clock import StepClock, mean_stages
from policy_speed.comparison import Comparison
from policy_speed.lerobot_training import LeRobotTraining
from policy_speed.our_training import OurTraining, encode_demonstrations

_TRIAL_STEPS = 20
"""Steps of ours from which the number of steps that fit the budget is foreseen."""
_RESERVE = 0.05
"""Share of the time left that is kept for what the trial did not foresee."""


@dataclass(frozen=True)
class Budget:
    """How long each side trains, and on what.

    Attributes:
        minutes: Wall-clock time of each side's training; the encoding of frames counts in ours.
        lerobot_batch_size: LeRobot's windows per step; fewer mean more steps in the same time.
        seed: Of both sides' weights and batches.
    """

    minutes: float
    lerobot_batch_size: int
    seed: int


@dataclass(frozen=True)
class Rollouts:
    """How both checkpoints are measured: one episode for each seed."""

    env: EnvConfig
    seeds: Sequence[int]
    workers: int


def compare_success(
    store: DemoStore,
    dataset: Path,
    encoder: EncoderConfig,
    trainer: TrainerConfig,
    comparison: Comparison,
    budget: Budget,
    rollouts: Rollouts,
    folder: Path,
    console: Console,
) -> dict[str, Any]:
    """Train both sides for the budget, then roll both out on the same seeds.

    Ours goes first: it encodes all frames anew, foresees from a few steps how many fit, and trains those with its
    schedule, one at least. LeRobot's then trains for the budget, or for as long as ours took if that was longer.

    Args:
        store: Demonstrations.
        dataset: The same as a LeRobotDataset.
        encoder: Our frozen encoder.
        trainer: Our training; its number of steps is replaced.
        comparison: The two policies.
        budget: How long.
        rollouts: How the results are measured.
        folder: A new folder for checkpoints and evaluations.
        console: Where progress is shown.

    Returns:
        For `ours` and `lerobot`: steps, samples, seconds of training, success rate, Wilson interval and checkpoint;
        and `p_value`, of the exact McNemar test on the paired episodes.

    Raises:
        UserError: Anything about policies and environment.
    """
    seconds = 60 * budget.minutes
    demonstration_seeds = [int(seed) for seed in store.episode_seeds if seed >= 0]
    information = {
        "env": describe_env(rollouts.env),
        "versions": software_versions(),
        "demonstrations": str(store.path),
        "demonstration_seeds": demonstration_seeds,
    }
    console.print(f"{comparison.name}: training ours for {budget.minutes:g} minutes")
    ours = _train_ours(store, encoder, trainer, comparison, seconds, budget.seed, folder / "ours", information, console)
    console.print(f"{comparison.name}: training LeRobot's for {max(seconds, ours['seconds']) / 60:.1f} minutes")
    lerobot = _train_lerobot(
        dataset, comparison, max(seconds, ours["seconds"]), budget.lerobot_batch_size, budget.seed, folder / "lerobot"
    )
    records: list[EvaluationRecord] = []
    for name, side in (("ours", ours), ("lerobot", lerobot)):
        console.print(f"{comparison.name}: rolling {name} out")
        record = evaluate_policy(
            Path(side["checkpoint"]),
            rollouts.env,
            rollouts.seeds,
            workers=rollouts.workers,
            demonstration_seeds=demonstration_seeds,
            console=console,
        )
        record.save(folder / name / "evaluation.json")
        side |= {"success_rate": record.success_rate, "ci95": list(record.ci95), "n_episodes": record.n_episodes}
        records.append(record)
    outcomes = [[episode.success for episode in record.episodes] for record in records]
    return {
        "minutes": budget.minutes,
        "env": information["env"],
        "ours": ours,
        "lerobot": lerobot,
        "p_value": paired_p_value(*outcomes),
    }


def _train_ours(
    store: DemoStore,
    encoder: EncoderConfig,
    trainer: TrainerConfig,
    comparison: Comparison,
    seconds: float,
    seed: int,
    folder: Path,
    information: Mapping[str, Any],
    console: Console,
) -> dict[str, Any]:
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch, phase_progress(console) as progress:
        encoding = progress.add_task("encoding frames", total=None, note="")
        cache, cache_seconds = encode_demonstrations(
            store,
            encoder,
            Path(scratch) / "features",
            on_progress=lambda done, total: progress.update(encoding, completed=done, total=total),
        )
        clock = StepClock()
        trial = OurTraining(store, encoder, comparison.ours, trainer, seed, cache)
        trial.run(_TRIAL_STEPS, Path(scratch) / "trial", clock)
        seconds_per_step = sum(mean_stages(clock.steps[_TRIAL_STEPS // 4 : -1]).values())
        left = seconds - (time.perf_counter() - start)
        steps = max(int((1 - _RESERVE) * left / seconds_per_step), 1)
        task = progress.add_task("training", total=steps, note="")
        training = OurTraining(store, encoder, comparison.ours, trainer, seed, cache)
        checkpoint = training.run(
            steps,
            folder,
            information=information,
            on_step=lambda step, loss: progress.update(task, completed=step, note=f"loss {loss:.4f}"),
        )
    return {
        "steps": steps,
        "samples": steps * trainer.batch_size,
        "seconds": time.perf_counter() - start,
        "cache_seconds": cache_seconds,
        "loss": training.loss,
        "checkpoint": str(checkpoint),
    }


def _train_lerobot(
    dataset: Path, comparison: Comparison, seconds: float, batch_size: int, seed: int, folder: Path
) -> dict[str, Any]:
    # The trial decides the length of the schedule, and is a gift: its time does not count.
    trial, clock = LeRobotTraining(dataset, comparison.lerobot, batch_size, seed, folder), StepClock()
    trial.run(3, clock)
    steps = max(int(seconds / sum(mean_stages(clock.steps[1:]).values())), 1)
    del trial
    training = LeRobotTraining(dataset, comparison.lerobot, batch_size, seed, folder, steps)
    start = time.perf_counter()
    training.run_for(seconds)
    trained_for = time.perf_counter() - start
    return {
        "steps": training.steps_done,
        "samples": training.steps_done * batch_size,
        "seconds": trained_for,
        "loss": training.loss,
        "checkpoint": str(training.save()),
    }
