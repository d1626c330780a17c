"""Let an exported policy drive a robot: a simulated one, or any that LeRobot knows.

uv run scripts/run_policy.py artifact=policy.pt
uv run scripts/run_policy.py server=wss://gpu.lab:8765 token_file=token.txt mode=asynchronous episodes=10
uv run scripts/run_policy.py artifact=policy.pt robot=lerobot robot.type=so101_follower +robot.port=/dev/ttyACM0 dry_run=true
"""

import dataclasses
import logging
import sys
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.logging import RichHandler

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.errors import UserError
from pixio_robot.common.settings import Count, NonNegative, Place, Positive, Switch, Text, Whole, save, settings
from pixio_robot.environments import EnvDescription


@settings(kw_only=True)
class RunPolicy:
    """Settings of the job."""

    robot: dict[str, Any]
    """The robot: `sim`, or one of LeRobot's, whose fields are given as +robot.port=/dev/ttyACM0."""
    env: EnvDescription
    """The simulated task, with robot=sim."""
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
    dry_run: Switch = False
    """Show what would be sent beside where the robot stands, say whether it may be driven, and send nothing."""
    realtime: Switch = True
    """robot=sim: at the control rate; false: as fast as it simulates, inference taking none of the simulated time."""
    episodes: Count = 1
    """robot=sim: how many."""
    first_seed: Whole = 100000
    """robot=sim: seed of the first; the others follow."""
    compare_with: Place | None = None
    """robot=sim: an evaluation.json of scripts/evaluate_policy.py on these seeds."""
    output_root: Place = Path("outputs")
    """Folder of everything that is written."""
    run: Text | None = None
    """robot=sim: name of the folder of the record under `<output_root>/run_policy`; null takes the time."""
    duration: Positive = 30
    """robot=lerobot: seconds."""
    names: Literal["artifact", "robot"] = "artifact"
    """robot=lerobot: where numbers that the artifact does not name get their names; robot: from the robot, in its order."""
    action_space: Literal["absolute", "delta", "velocity"] | None = None
    """robot=lerobot: what an action is, for an artifact that does not say."""
    step_factor: Positive = 1.5
    """robot=lerobot: how much further than in the demonstrations a number may move in a control period."""
    largest_step: Positive | None = None
    """robot=lerobot: or how far every number may move in one, in its own unit."""
    ramp: NonNegative = 2
    """robot=lerobot: seconds in which the largest step grows from nothing."""
    task: Text | None = None
    """robot=lerobot: what a policy of several tasks is to do, in the words of its demonstrations; robot=sim says it itself."""
    noise_seed: Whole | None = None
    """robot=lerobot: what a policy that samples starts from; null draws one and prints it."""
    call_timeout: Positive = 0.5
    """robot=lerobot: seconds after which a call of the robot's driver counts as hanging."""

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
    from pixio_robot.deployment.driving import Caution, compare_episodes, drive_robot, drive_simulation, open_policy
    from pixio_robot.engine.run_folder import new_run_dir
    from pixio_robot.environments import env_config_from

    console = Console()
    logging.basicConfig(
        level=logging.WARNING, handlers=[RichHandler(console=console, show_path=False)], format="%(message)s"
    )
    policy = open_policy(
        settings.artifact, settings.server, settings.device, settings.token_file, settings.certificates
    )
    given = {"mode": settings.mode, "rate": settings.rate, "dry_run": settings.dry_run, "console": console}
    if settings.robot["kind"] == "lerobot":
        description = {name: value for name, value in settings.robot.items() if name != "kind"}
        caution = Caution(
            settings.names,
            settings.action_space,
            settings.step_factor,
            settings.largest_step,
            settings.ramp,
            settings.call_timeout,
        )
        given |= {"cameras": settings.cameras, "seconds": settings.duration, "caution": caution}
        given |= {"seed": settings.noise_seed, "task": settings.task}
        sys.exit(0 if drive_robot(policy, description, **given) else 1)
    env_config = env_config_from(settings.env)
    seeds = range(settings.first_seed, settings.first_seed + settings.episodes)
    name = str(settings.artifact or settings.server)
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
