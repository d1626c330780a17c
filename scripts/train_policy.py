"""Collect demonstrations, train a policy on an encoder, and measure its success rate in simulation.

uv run scripts/train_policy.py
uv run scripts/train_policy.py encoder=pixio_small policy=diffusion env=robosuite_stack run=stack
uv run scripts/train_policy.py demos=lerobot demos.root=my_dataset

With several processes: `torchrun --nproc-per-node 2 scripts/train_policy.py …`; the batch is shared among them.
"""

import dataclasses
from pathlib import Path

from rich.console import Console

from pixio_robot.cli.entry_points import entry_point, given_fields, given_settings
from pixio_robot.training.config import TrainPolicy


@entry_point("train_policy", TrainPolicy, finished_by="report.html")
def main(settings: TrainPolicy) -> None:
    """Run the whole way."""
    from pixio_robot.environments import describe_env, env_config_from, env_config_meant
    from pixio_robot.evaluation.checkpoints import find_checkpoint, run_information
    from pixio_robot.training.job import run_policy_job
    from pixio_robot.training.policy.building import check_policy
    from pixio_robot.training.policy.starting_point import described_by

    if settings.start_from is not None:
        changes = [given_fields(settings, group, "start_from") for group in ("policy", "encoder")]
        start = find_checkpoint(Path(settings.start_from), Path(settings.output_root), Console())
        policy, encoder = described_by(start, *changes)
        settings = dataclasses.replace(settings, policy=policy, encoder=encoder, start_from=str(start))
        noted = run_information(start).get("env")
        if settings.demos.source == "scripted" and noted:
            env_config = env_config_meant(given_fields(settings, "env"), noted, str(start))
            settings = dataclasses.replace(settings, env=describe_env(env_config))
    check_policy(settings.policy, settings.encoder)
    if "type" in settings.env or settings.demos.source == "scripted":
        env_config_from(settings.env)
    run_policy_job(settings, resume=settings.resume, run=settings.run, given=given_settings(settings))


if __name__ == "__main__":
    main()
