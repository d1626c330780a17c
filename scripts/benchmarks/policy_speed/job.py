"""The whole benchmark: demonstrations for both sides, then either of the two comparisons, then a record."""

import dataclasses
import datetime
import gc
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.common.progress import phase_progress
from pixio_robot.common.storage.files import write_json
from pixio_robot.common.versions import software_versions
from pixio_robot.demos import DemoStore
from pixio_robot.encoders import EncoderConfig
from pixio_robot.environments import env_config_from
from pixio_robot.training.config import DemosConfig, TrainerConfig
from pixio_robot.training.data.opening import open_demonstrations
from pixio_robot.training.policy.building import policy_config_from
from policy_speed.budget import Budget, Rollouts, compare_success
from policy_speed.comparison import Comparison, compare_speed
from policy_speed.lerobot_training import LeRobotTraining, lerobot_dataset, lerobot_policy_config
from policy_speed.our_training import OurTraining, encode_demonstrations


@dataclass(frozen=True)
class PolicyBenchmark:
    """What is compared, and on what.

    Attributes:
        comparisons: Pairs of policies.
        encoder: Our encoder, frozen.
        env: The environment, for demonstrations that are not there yet and for rollouts.
        demos: Where demonstrations come from; both sides train on all that the store has.
        trainer: Our training.
        use_videos: LeRobot's dataset as video rather than images.
        threads: torch's, of the training process.
        seed: Of weights and batches.
        output_root: Where the main job keeps demonstrations.
        output: Folder of the records, the LeRobotDataset and checkpoints.
    """

    comparisons: Sequence[Comparison]
    encoder: EncoderConfig
    env: dict[str, Any]
    demos: DemosConfig
    trainer: TrainerConfig
    use_videos: bool
    threads: int
    seed: int
    output_root: Path
    output: Path


def measure_speed(
    benchmark: PolicyBenchmark, console: Console, *, rounds: int, our_steps: int, lerobot_steps: int
) -> dict[str, Any]:
    """Measure samples trained per second; the record is returned and written to `speed.json`.

    Raises:
        UserError: Anything the user can mend.
    """
    store, dataset = _prepare(benchmark, console)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch, phase_progress(console) as progress:
        encoding = progress.add_task("encoding frames", total=None, note="")
        cache, cache_seconds = encode_demonstrations(
            store,
            benchmark.encoder,
            Path(scratch) / "features",
            on_progress=lambda done, total: progress.update(encoding, completed=done, total=total),
        )
        for comparison in benchmark.comparisons:
            task = progress.add_task(f"{comparison.name}, rounds", total=rounds, note="")
            ours = OurTraining(store, benchmark.encoder, comparison.ours, benchmark.trainer, benchmark.seed, cache)
            lerobot = LeRobotTraining(
                dataset,
                comparison.lerobot,
                benchmark.trainer.batch_size,
                benchmark.seed,
                Path(scratch) / comparison.name,
            )
            result = compare_speed(
                ours,
                lerobot,
                rounds=rounds,
                our_steps=our_steps,
                lerobot_steps=lerobot_steps,
                on_round=lambda task=task: progress.advance(task),
            )
            encoding_per_step = cache_seconds / benchmark.trainer.steps
            our_seconds = result["ours"]["seconds_per_step"] + encoding_per_step
            result["ratio_with_caching"] = result["lerobot"]["seconds_per_step"] / our_seconds
            results[comparison.name] = _described(comparison) | result
            backend = lerobot.config.dataset.video_backend
            del ours, lerobot
            gc.collect()  # hundreds of megabytes of weights and moments before the next ones
    record = _facts(benchmark, store) | {
        "video_backend": backend if benchmark.use_videos else "PIL",
        "cache_seconds": cache_seconds,
        "run_steps": benchmark.trainer.steps,
        "comparisons": results,
    }
    write_json(benchmark.output / "speed.json", record)
    return record


def measure_success(
    benchmark: PolicyBenchmark,
    console: Console,
    *,
    minutes: float,
    lerobot_batch_size: int,
    seeds: Sequence[int],
    workers: int,
) -> dict[str, Any]:
    """Measure success after the same minutes; the record is returned and written to `success.json`.

    Raises:
        UserError: Anything the user can mend.
    """
    store, dataset = _prepare(benchmark, console)
    stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    record = _facts(benchmark, store) | {"minutes": minutes, "comparisons": {}}
    for comparison in benchmark.comparisons:
        result = compare_success(
            store,
            dataset,
            benchmark.encoder,
            benchmark.trainer,
            comparison,
            Budget(minutes, lerobot_batch_size, benchmark.seed),
            Rollouts(env_config_from(benchmark.env), seeds, workers),
            benchmark.output / "success" / f"{stamp}_{comparison.name}",
            console,
        )
        record["comparisons"][comparison.name] = _described(comparison) | result
        write_json(benchmark.output / "success.json", record)
        gc.collect()
    return record


def _prepare(benchmark: PolicyBenchmark, console: Console) -> tuple[DemoStore, Path]:
    """Return the demonstrations as our store and as LeRobot's dataset, once all configs are known to be good."""
    if benchmark.encoder.mode != "frozen":
        raise UserError(
            f"This benchmark trains on cached tokens: set encoder.mode=frozen, not {benchmark.encoder.mode}."
        )
    for comparison in benchmark.comparisons:
        lerobot_policy_config(comparison.lerobot)
    torch.set_num_threads(benchmark.threads)
    store = open_demonstrations(benchmark.demos, env_config_from(benchmark.env), benchmark.output_root, console)
    for comparison in benchmark.comparisons:
        policy_config_from(comparison.ours, benchmark.encoder, store)
    return store, lerobot_dataset(store, benchmark.output / "lerobot", benchmark.use_videos)


def _facts(benchmark: PolicyBenchmark, store: DemoStore) -> dict[str, Any]:
    return {
        "encoder": dataclasses.asdict(benchmark.encoder),
        "trainer": dataclasses.asdict(benchmark.trainer),
        "demonstrations": str(store.path),
        "episodes": store.num_episodes,
        "frames": store.num_steps,
        "cameras": {key: list(store.features[key].shape[:2]) for key in store.image_keys},
        "dataset_format": "video" if benchmark.use_videos else "images",
        "threads": benchmark.threads,
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "seed": benchmark.seed,
        "versions": software_versions(),
    }


def _described(comparison: Comparison) -> dict[str, Any]:
    return {
        "types": {"ours": comparison.ours["type"], "lerobot": comparison.lerobot["type"]},
        "configs": {"ours": dict(comparison.ours), "lerobot": dict(comparison.lerobot)},
    }
