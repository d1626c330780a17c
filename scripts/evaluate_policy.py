"""Measure the success rate of a policy checkpoint in simulation.

uv run scripts/evaluate_policy.py checkpoint=outputs/train_policy/<date>/checkpoints/last/pretrained_model
"""

from datetime import datetime
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from pixio_robot.entry_points import entry_point
from pixio_robot.evaluation.workers import start_server


@entry_point("evaluate_policy")
def main(cfg: DictConfig) -> None:
    """Roll the policy out; see configs/evaluate_policy.yaml."""
    start_server(["pixio_robot.evaluation.rollouts"])
    from pixio_robot.evaluation.environments import env_config_from
    from pixio_robot.evaluation.record import write_json
    from pixio_robot.evaluation.report import write_report
    from pixio_robot.evaluation.rollouts import evaluate_policy
    from pixio_robot.training.run_log import RunLog

    console = Console()
    run_dir = Path(cfg.output_root) / "evaluate_policy" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    record = evaluate_policy(
        Path(cfg.checkpoint),
        env_config_from(OmegaConf.to_container(cfg.env)),
        range(cfg.first_seed, cfg.first_seed + cfg.episodes),
        workers=cfg.workers,
        videos_dir=run_dir / "evaluation" / "videos",
        n_videos=cfg.videos,
        console=console,
    )
    RunLog(run_dir, console).write("evaluation", event="finished", seconds=round(record.seconds, 1))
    OmegaConf.save(cfg, run_dir / "config.yaml")
    write_json(run_dir / "environment.json", record.versions)
    record.save(run_dir / "evaluation" / "evaluation.json")
    console.print(f"[bold green]{record.summary()}", highlight=False)
    console.print(f"report {write_report(run_dir)}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
