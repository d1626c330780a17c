"""Let an exported policy drive a robot: a simulated one, or any that LeRobot knows.

uv run scripts/run_policy.py artifact=policy.pt
uv run scripts/run_policy.py artifact=policy.pt robot=lerobot robot.type=so101_follower +robot.port=/dev/ttyACM0 dry_run=true
"""

import logging
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.logging import RichHandler

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.errors import UserError


@entry_point("run_policy")
def main(cfg: DictConfig) -> None:
    """Drive; see configs/run_policy.yaml."""
    from pixio_robot.deployment.driving import compare_episodes, drive_robot, drive_simulation, open_policy
    from pixio_robot.environments import env_config_from

    console = Console()
    logging.basicConfig(
        level=logging.WARNING, handlers=[RichHandler(console=console, show_path=False)], format="%(message)s"
    )
    if cfg.episodes < 1:
        raise UserError(f"{cfg.episodes} episodes are none: ask for at least 1.")
    policy = open_policy(cfg.artifact, cfg.server, cfg.device, cfg.token_file, cfg.certificates)
    given = {"mode": cfg.mode, "rate": cfg.rate, "dry_run": cfg.dry_run, "console": console}
    if cfg.robot.kind == "lerobot":
        description: Any = OmegaConf.to_container(cfg.robot)
        del description["kind"]
        drive_robot(policy, description, cameras=cfg.cameras, seconds=cfg.duration, **given)
        return
    env: Any = OmegaConf.to_container(cfg.env)
    env_config = env_config_from(env)
    seeds = range(cfg.first_seed, cfg.first_seed + cfg.episodes)
    name = str(cfg.artifact or cfg.server)
    record = drive_simulation(policy, env_config, seeds, realtime=cfg.realtime, name=name, **given)
    if record is None:
        return
    run_dir = Path(cfg.output_root) / "run_policy" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    record.save(run_dir / "evaluation" / "evaluation.json")
    OmegaConf.save(cfg, run_dir / "config.yaml")
    console.print(f"[bold green]{record.summary()}", highlight=False)
    if cfg.compare_with is not None:
        console.print(compare_episodes(record, Path(cfg.compare_with)), highlight=False, soft_wrap=True)
    console.print(f"record {run_dir / 'evaluation' / 'evaluation.json'}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
