"""Measure our policies beside LeRobot's own: samples trained per second, or success after the same minutes.

uv run scripts/benchmarks/benchmark_policies.py
uv run scripts/benchmarks/benchmark_policies.py mode=success 'compare=[act]'
uv run scripts/benchmarks/benchmark_policies.py env=robosuite_stack demos=store demos.path=outputs/demos/stack.zarr

Both train on the same demonstrations, in one process.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.settings import Count, Place, Positive, Switch, Text, Whole, settings
from pixio_robot.encoders.config import EncoderConfig
from pixio_robot.environments import EnvDescription
from pixio_robot.training.config import DemosConfig, TrainerConfig


@settings
class Speed:
    """How speed is measured."""

    rounds: Count = 3
    """Interleaved: ours, LeRobot's, ours, …"""
    our_steps: Count = 40
    """Measured in each of our rounds."""
    lerobot_steps: Count = 1
    """In each of LeRobot's: some ten seconds each."""


@settings
class Success:
    """How success is measured."""

    minutes: Positive = 10
    """Of training, each."""
    lerobot_batch_size: Count = 8
    """lerobot-train's default."""
    episodes: Count = 50
    """Rollouts of each."""
    first_seed: Whole = 100000
    """Of the rollouts."""
    workers: Count = 2
    """Processes that roll out."""


@settings(kw_only=True)
class BenchmarkPolicies:
    """Settings of the job."""

    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    """Our encoder, frozen."""
    env: EnvDescription
    """The task, whose demonstrations are collected first where there are none."""
    demos: DemosConfig
    """Where demonstrations come from."""
    trainer: TrainerConfig = dataclasses.field(default_factory=TrainerConfig)
    """Our training."""
    mode: Literal["speed", "success"] = "speed"
    """`speed`: samples trained per second, and what a step's time goes to; some ten minutes on two idle cores. `success`: of both
    after the same minutes of training."""
    compare: tuple[Text, ...] = ("act", "act_same_transformer", "diffusion", "diffusion_same_unet")
    """Which of `comparisons`."""
    comparisons: dict[str, dict[str, Any]]
    """Pairs of policies: `ours` and `lerobot`."""
    use_videos: Switch = True
    """LeRobot's dataset: video, as it records; false for images."""
    threads: Count = 2
    """torch's, of the training process."""
    seed: Whole = 0
    """Of weights and batches."""
    speed: Speed = dataclasses.field(default_factory=Speed)
    """With mode=speed."""
    success: Success = dataclasses.field(default_factory=Success)
    """With mode=success."""
    output_root: Place = Path("outputs")
    """Where the main job keeps demonstrations."""
    output: Place
    """Folder of speed.json, success.json, the LeRobotDataset and checkpoints."""


@entry_point("benchmark_policies", BenchmarkPolicies, configs=Path(__file__).parent / "configs")
def main(settings: BenchmarkPolicies) -> None:
    """Compare both sides and print tables."""
    from policy_speed.comparison import chosen
    from policy_speed.job import PolicyBenchmark, measure_speed, measure_success
    from policy_speed.tables import print_speed, print_success

    benchmark = PolicyBenchmark(
        comparisons=chosen(settings.compare, settings.comparisons),
        encoder=settings.encoder,
        env=settings.env,
        demos=settings.demos,
        trainer=settings.trainer,
        use_videos=settings.use_videos,
        threads=settings.threads,
        seed=settings.seed,
        output_root=settings.output_root,
        output=settings.output,
    )
    console = Console()
    if settings.mode == "speed":
        print_speed(measure_speed(benchmark, console, **dataclasses.asdict(settings.speed)), console)
    else:
        success = dataclasses.asdict(settings.success)
        first = success.pop("first_seed")
        seeds = range(first, first + success.pop("episodes"))
        print_success(measure_success(benchmark, console, seeds=seeds, **success), console)
    console.print(f"record {benchmark.output / f'{settings.mode}.json'}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
