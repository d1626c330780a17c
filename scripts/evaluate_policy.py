"""Measure the success rate of a policy checkpoint in simulation.

uv run scripts/evaluate_policy.py checkpoint=outputs/train_policy/<date>/checkpoints/last/pretrained_model

With 'perturbations=[light,camera,table_texture,table_colour,distractors]' it is measured under each of them, too, on the
same seeds, and compared with the task as it is.
"""

from datetime import datetime
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.workers import start_server


@entry_point("evaluate_policy")
def main(cfg: DictConfig) -> None:
    """Roll the policy out; see configs/evaluate_policy.yaml."""
    start_server(["pixio_robot.evaluation.rollouts.evaluate"])
    from pixio_robot.common.files import write_json
    from pixio_robot.engine.run_log import RunLog
    from pixio_robot.environments import env_config_from
    from pixio_robot.evaluation.robustness.evaluate import (
        NOMINAL,
        as_json,
        as_table,
        evaluate_under_perturbations,
        perturbed_configs,
        save_picture,
    )
    from pixio_robot.reports.page import write_report

    console = Console()
    run_dir = Path(cfg.output_root) / "evaluate_policy" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    env_config = env_config_from(OmegaConf.to_container(cfg.env))
    names = cfg.perturbations
    conditions = evaluate_under_perturbations(
        Path(cfg.checkpoint),
        perturbed_configs(env_config, names) if names is not None else {NOMINAL: env_config},
        range(cfg.first_seed, cfg.first_seed + cfg.episodes),
        run_dir,
        workers=cfg.workers,
        batch_size=cfg.batch_size,
        time_limit=cfg.time_limit,
        n_videos=cfg.videos,
        console=console,
    )
    record = conditions[0].record
    seconds = sum(condition.record.seconds for condition in conditions)
    RunLog(run_dir, console).write("evaluation", event="finished", seconds=round(seconds, 1))
    OmegaConf.save(cfg, run_dir / "config.yaml")
    write_json(run_dir / "environment.json", record.versions)
    if names is not None:
        write_json(run_dir / "perturbations.json", as_json(conditions))
        save_picture(conditions, run_dir / "pictures" / "success_under_perturbations.png")
        console.print(as_table(conditions))
    else:
        console.print(f"[bold green]{record.summary()}", highlight=False)
    console.print(f"report {write_report(run_dir, record.as_json())}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
