"""Collect demonstrations of an environment's scripted expert, or of your own hand, into a zarr store.

uv run scripts/collect_demos.py env=robosuite_lift episodes=100 output=outputs/demos/lift.zarr
uv run scripts/collect_demos.py env=metaworld env.task=door-open-v3 workers=8 codec=jpeg
uv run scripts/collect_demos.py env=robosuite_lift episodes=10 expert=keyboard
"""

from pathlib import Path
from typing import Literal

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.settings import Count, Place, Text, Whole, settings
from pixio_robot.common.workers import start_server
from pixio_robot.environments import EnvDescription


@settings(kw_only=True)
class CollectDemos:
    """Settings of the job."""

    env: EnvDescription
    """The task."""
    episodes: Count = 100
    """Successful ones, of all tasks together; those that the store has already count."""
    output: Place | None = None
    """A DemoStore; null names one after the environment under `<output_root>/demos`, where train_policy looks for it."""
    output_root: Place = Path("outputs")
    """Folder of everything that is written."""
    expert: Text = "scripted"
    """`scripted`, or your hand: `keyboard`, or a device of robosuite's (`spacemouse`), on a machine with a screen."""
    first_seed: Whole = 0
    """Seed of the first episode; the others follow."""
    codec: Literal["lossless", "jpeg", "jpegxl"] = "lossless"
    """Of a new store; jpeg (quality 95) and jpegxl (distance 1) are smaller and lossy."""
    workers: Count | None = None
    """Processes; null takes every core."""


@entry_point("collect_demos", CollectDemos)
def main(settings: CollectDemos) -> None:
    """Collect."""
    if settings.expert == "scripted":
        start_server(["pixio_robot.demos.collection.collection"])
    from pixio_robot.demos.collection.collection import collect, store_path_for
    from pixio_robot.environments import env_config_from

    env_config = env_config_from(settings.env)
    store = settings.output or store_path_for(env_config, settings.output_root / "demos", settings.expert)
    how = {"first_seed": settings.first_seed, "codec": settings.codec}
    if settings.expert == "scripted":
        collect(env_config, store, settings.episodes, workers=settings.workers, **how)
    else:
        from pixio_robot.demos.collection.by_hand.teleoperation import record_by_hand

        record_by_hand(env_config, store, settings.episodes, settings.expert, **how)


if __name__ == "__main__":
    main()
