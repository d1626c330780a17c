"""Replay a recorded episode: in the simulation that it comes from, from its own seed, or on a robot.

uv run scripts/replay_demo.py path=outputs/demos/lift.zarr episode=3
uv run scripts/replay_demo.py path=outputs/lerobot/lift env=robosuite_lift realtime=true
uv run scripts/replay_demo.py path=/path/to/dataset robot=lerobot robot.type=so101_follower +robot.port=/dev/ttyACM0 dry_run=true
"""

import dataclasses
import logging
import sys

from rich.console import Console
from rich.logging import RichHandler

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.settings import NonNegative, Switch, Text, Whole, save, settings
from pixio_robot.deployment.config import Driving
from pixio_robot.environments import EnvDescription


@settings(kw_only=True)
class ReplayDemo(Driving):
    """Settings of the job."""

    path: Text
    """A demonstration store, or the folder of a LeRobotDataset v3."""
    episode: Whole = 0
    """Its number, counted from 0."""
    env: EnvDescription = dataclasses.field(default_factory=dict)
    """robot=sim: the simulated task; by default that of the recording, and env.NAME=… changes a field of it."""
    realtime: Switch = False
    """robot=sim: at the control rate; false: as fast as it simulates."""
    approach: NonNegative = 4
    """robot=lerobot: seconds in which it comes to the first action before the others follow, where actions are places."""


@entry_point("replay_demo", ReplayDemo)
def main(settings: ReplayDemo) -> None:
    """Replay."""
    from pixio_robot.demos.recorded import read_recorded
    from pixio_robot.deployment.replaying import replay_in_simulation, replay_on_robot, simulation_of
    from pixio_robot.engine.run_folder import new_run_dir

    console = Console()
    logging.basicConfig(
        level=logging.WARNING, handlers=[RichHandler(console=console, show_path=False)], format="%(message)s"
    )
    episode = read_recorded(settings.path, settings.episode)
    given = {"dry_run": settings.dry_run, "console": console}
    if settings.robot["kind"] == "lerobot":
        given |= {"approach": settings.approach, "caution": settings}
        sys.exit(0 if replay_on_robot(episode, settings.description, **given) else 1)
    env_config = simulation_of(episode, settings.env)
    if settings.dry_run:
        replay_in_simulation(episode, env_config, realtime=False, videos=None, **given)
        return
    run_dir = new_run_dir(settings.output_root / "replay_demo", settings.run)
    folder = run_dir / "evaluation"
    record = replay_in_simulation(episode, env_config, realtime=settings.realtime, videos=folder / "videos", **given)
    assert record is not None
    record.save(folder / "evaluation.json")
    save(settings, run_dir / "config.yaml")
    console.print(f"video {folder / str(record.episodes[0].video)}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
