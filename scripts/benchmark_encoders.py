"""Compare encoders by the success of policies on them, nominal and under perturbed looks.

uv run scripts/benchmark_encoders.py
uv run scripts/benchmark_encoders.py policy=bc 'demonstrations=[25]' 'seeds=[0,1,2]'
uv run scripts/benchmark_encoders.py '+encoders.mine={name: pixio_tiny16, weights: encoder.safetensors}'

Other rows instead of these: '~encoders' '+encoders={mine: {…}, random: {…}}'.
"""

import dataclasses
from typing import Any

from rich.console import Console

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.settings import Count, Place, Text, Whole, settings
from pixio_robot.common.workers import start_server
from pixio_robot.encoders.config import EncoderConfig
from pixio_robot.environments import EnvDescription
from pixio_robot.training.config import DemosConfig, EvaluationConfig, PolicyJob, TrainerConfig


@settings(kw_only=True)
class BenchmarkEncoders:
    """Settings of the job."""

    encoders: dict[str, EncoderConfig]
    """One row each; the first is compared with all others, episode by episode."""
    policy: dict[str, Any]
    """The policy of every row."""
    env: EnvDescription
    """The task."""
    demos: DemosConfig
    """Where demonstrations come from."""
    trainer: TrainerConfig = dataclasses.field(default_factory=TrainerConfig)
    """How long and how fast to train."""
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    """How every policy is measured."""
    demonstrations: tuple[Count, ...] = (10, 25, 100)
    """Numbers of demonstrations to train from, the first of one store."""
    perturbations: tuple[Text, ...] = ("light", "camera", "table_texture")
    """Changes of looks under which every policy is measured, too."""
    seeds: tuple[Whole, ...] = (0,)
    """Seeds of training; evaluation seeds are the same for all."""
    output_root: Text = "outputs"
    """Folder of everything that is written."""
    output: Place
    """Folder of the results; cells found here are kept, if their settings are these: an interrupted benchmark goes on."""


@entry_point("benchmark_encoders", BenchmarkEncoders)
def main(settings: BenchmarkEncoders) -> None:
    """Train and roll out every cell."""
    start_server(["pixio_robot.evaluation.rollouts.evaluate"])
    from pixio_robot.downstream.robot_learning.encoder_benchmark import BenchmarkPlan, as_table, benchmark_encoders
    from pixio_robot.training.policy.building import check_policy

    check_policy(settings.policy, EncoderConfig())
    plan = BenchmarkPlan(
        encoders=settings.encoders,
        demonstrations=settings.demonstrations,
        perturbations=settings.perturbations,
        seeds=settings.seeds,
        job=PolicyJob(
            policy=settings.policy,
            env=settings.env,
            demos=settings.demos,
            trainer=settings.trainer,
            evaluation=settings.evaluation,
            output_root=settings.output_root,
        ),
        folder=settings.output,
    )
    console = Console()
    console.print(as_table(benchmark_encoders(plan, console)))
    console.print(f"results {plan.folder}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
