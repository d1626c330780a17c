"""Let an exported policy drive a robot: a simulated one, or any that LeRobot knows.

uv run scripts/run_policy.py artifact=policy.pt
uv run scripts/run_policy.py server=wss://gpu.lab:8765 token_file=token.txt mode=asynchronous episodes=10
uv run scripts/run_policy.py artifact=policy.pt robot=lerobot robot.type=so101_follower +robot.port=/dev/ttyACM0 dry_run=true
"""

import dataclasses
import logging
import sys
from typing import Literal

from rich.console import Console
from rich.logging import RichHandler

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.errors import UserError
from pixio_robot.common.settings import Count, Place, Positive, Switch, Text, Whole, save, settings
from pixio_robot.deployment.config import Driving
from pixio_robot.environments import EnvDescription


@settings(kw_only=True)
class RunPolicy(Driving):
    """Settings of the job."""

    env: EnvDescription = dataclasses.field(default_factory=dict)
    """robot=sim: the simulated task; by default that of the training, and env.NAME=… changes a field of it."""
    artifact: Text | None = None
    """A policy of scripts/export.py, run on this computer."""
    server: Text | None = None
    """Or where scripts/serve_policy.py runs it: ws://host:8765 or wss://host:8765."""
    token_file: Text | None = None
    """Holds the server's token."""
    certificates: Text | None = None
    """What a wss:// server's certificate is checked against; null: the system's."""
    device: Text = "cpu"
    """Where the artifact runs."""
    mode: Literal["synchronous", "ensemble", "asynchronous"] = "synchronous"
    """When the policy is asked and what of its answers is done; pixio_robot/deployment/runtime/modes.py draws them."""
    rate: Positive | None = None
    """Control rate in Hz, for an artifact that does not say."""
    cameras: dict[str, Text] = dataclasses.field(default_factory=dict)
    """+cameras.front=webcam: what the artifact calls front is the robot's webcam."""
    realtime: Switch = True
    """robot=sim: at the control rate; false: as fast as it simulates, inference taking none of the simulated time."""
    episodes: Count = 1
    """robot=sim: how many."""
    first_seed: Whole = 100000
    """robot=sim: seed of the first; the others follow."""
    compare_with: Place | None = None
    """robot=sim: an evaluation.json of scripts/evaluate_policy.py on these seeds."""
    duration: Positive = 30
    """robot=lerobot: seconds."""
    task: Text | None = None
    """robot=lerobot: what a policy of several tasks is to do, in the words of its demonstrations; robot=sim says it itself."""
    noise_seed: Whole | None = None
    """robot=lerobot: what a policy that samples starts from; null draws one and prints it."""

    def __post_init__(self) -> None:
        """Check that there is one policy.

        Raises:
            UserError: There is none, or there are two.
        """
        if (self.artifact is None) == (self.server is None):
            raise UserError("Give either artifact=<file> or server=ws://<host>:<port>.")


@entry_point("run_policy", RunPolicy)
def main(settings: RunPolicy) -> None:
    """Drive."""
    from pixio_robot.deployment.driving import compare_episodes, drive_robot, drive_simulation, open_policy
    from pixio_robot.engine.run_folder import new_run_dir
    from pixio_robot.environments import describe_env, env_config_meant

    console = Console()
    logging.basicConfig(
        level=logging.WARNING, handlers=[RichHandler(console=console, show_path=False)], format="%(message)s"
    )
    policy = open_policy(
        settings.artifact, settings.server, settings.device, settings.token_file, settings.certificates
    )
    given = {"mode": settings.mode, "rate": settings.rate, "dry_run": settings.dry_run, "console": console}
    if settings.robot["kind"] == "lerobot":
        given |= {"cameras": settings.cameras, "seconds": settings.duration, "caution": settings}
        given |= {"seed": settings.noise_seed, "task": settings.task}
        sys.exit(0 if drive_robot(policy, settings.description, **given) else 1)
    name = str(settings.artifact or settings.server)
    env_config = env_config_meant(settings.env, policy.metadata.get("env"), name)
    settings = dataclasses.replace(settings, env=describe_env(env_config))
    seeds = range(settings.first_seed, settings.first_seed + settings.episodes)
    record = drive_simulation(policy, env_config, seeds, realtime=settings.realtime, name=name, **given)
    if record is None:
        return
    run_dir = new_run_dir(settings.output_root / "run_policy", settings.run)
    record.save(run_dir / "evaluation" / "evaluation.json")
    save(settings, run_dir / "config.yaml")
    console.print(f"[bold green]{record.summary()}", highlight=False)
    if settings.compare_with is not None:
        console.print(compare_episodes(record, settings.compare_with), highlight=False, soft_wrap=True)
    console.print(f"record {run_dir / 'evaluation' / 'evaluation.json'}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
