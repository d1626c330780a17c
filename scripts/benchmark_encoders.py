"""Compare encoders by the success of policies on them, nominal and under perturbed looks."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.workers import start_server


@entry_point("benchmark_encoders")
def main(cfg: DictConfig) -> None:
    """Train and roll out every cell; see configs/benchmark_encoders.yaml."""
    start_server(["pixio_robot.evaluation.rollouts.evaluate"])
    from pixio_robot.downstream.robot_learning.encoder_benchmark import (
        BenchmarkPlan,
        as_table,
        benchmark_encoders,
        encoders_from,
    )
    from pixio_robot.encoders import EncoderConfig
    from pixio_robot.training import DemosConfig, EvaluationConfig, PolicyJob, TrainerConfig

    fields = OmegaConf.to_container(cfg)
    job = PolicyJob(
        encoder=EncoderConfig(),
        policy=fields["policy"],
        env=fields["env"],
        demos=DemosConfig(**fields["demos"]),
        trainer=TrainerConfig(**fields["trainer"]),
        evaluation=EvaluationConfig(**fields["evaluation"]),
        output_root=fields["output_root"],
    )
    plan = BenchmarkPlan(
        encoders=encoders_from(fields["encoders"]),
        demonstrations=fields["demonstrations"],
        perturbations=fields["perturbations"],
        seeds=fields["seeds"],
        job=job,
        folder=Path(fields["output"]),
    )
    console = Console()
    console.print(as_table(benchmark_encoders(plan, console)))
    console.print(f"results {plan.folder}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
