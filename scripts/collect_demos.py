"""Collect demonstrations of a scripted expert, of your own hand, or an expert's corrections of a policy, into a zarr store.

uv run scripts/collect_demos.py env=robosuite_lift episodes=100 output=outputs/demos/lift.zarr
uv run scripts/collect_demos.py checkpoint=latest episodes=50 output=corrected.zarr
uv run scripts/collect_demos.py env=robosuite_lift episodes=10 expert=keyboard

In parts, at once on any machines: episodes=1000 part=1 parts=4, and so on; episodes=1000 parts=4 alone then makes one store of
them, and tries the seeds behind.
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Literal

from pixio_robot.cli.entry_points import entry_point, given_fields
from pixio_robot.common.errors import UserError
from pixio_robot.common.settings import Count, Place, Text, Whole, plain, settings
from pixio_robot.common.storage.parts import Parts
from pixio_robot.common.workers import start_server
from pixio_robot.environments import EnvDescription


@settings(kw_only=True)
class CollectDemos(Parts):
    """Settings of the job."""

    env: EnvDescription
    """The task; with `checkpoint`, by default that of its training."""
    episodes: Count = 100
    """Successful ones, of all tasks together; those that the store has already count."""
    output: Place | None = None
    """A DemoStore; null names one after the environment under `<output_root>/demos`, where train_policy looks for it."""
    output_root: Place = Path("outputs")
    """Folder of everything that is written."""
    expert: Text = "scripted"
    """`scripted`, or your hand: `keyboard`, or a device of robosuite's (`spacemouse`), on a machine with a screen."""
    checkpoint: Place | None = None
    """Of a policy that drives and that the scripted expert corrects (DAgger): a `pretrained_model` folder, a run, or `latest`."""
    takeover: Literal["chance", "stuck"] = "chance"
    """When the expert corrects: in turns of random length and where the policy is stuck, or only there and to the end."""
    first_seed: Whole | None = None
    """Seed of the first episode; the others follow. Null begins at 0, and corrections at 50000."""
    codec: Literal["lossless", "jpeg", "jpegxl"] = "lossless"
    """Of a new store; jpeg (quality 95) and jpegxl (distance 1) are smaller and lossy."""
    workers: Count | None = None
    """Processes; null takes every core."""


@entry_point("collect_demos", CollectDemos)
def main(settings: CollectDemos) -> None:
    """Collect."""
    if settings.checkpoint is not None and settings.expert != "scripted":
        raise UserError(
            f"The policy of checkpoint= is corrected by the scripted expert, not by expert={settings.expert}: leave one out. A "
            "person's corrections of a robot are recorded with LeRobot's `lerobot-rollout --strategy.type=dagger`."
        )
    if settings.expert == "scripted":
        start_server(["pixio_robot.demos.collection.collection"])
    from pixio_robot.demos.collection.collection import (
        CORRECTED,
        FIRST_EVALUATION_SEED,
        collect,
        store_attributes,
        store_path_for,
    )
    from pixio_robot.environments import describe_env, env_config_from

    env_config, corrected, weights = env_config_from(settings.env), None, None
    if settings.checkpoint is not None:
        from pixio_robot.common.storage.kept import checksums
        from pixio_robot.training.corrections import CorrectedPolicies, find_policy

        checkpoint, env_config = find_policy(settings.checkpoint, settings.output_root, given_fields(settings, "env"))
        settings = dataclasses.replace(settings, env=describe_env(env_config))
        corrected = partial(CorrectedPolicies, checkpoint, settings.takeover)
        weights = checksums(checkpoint, "model.safetensors")["model.safetensors"]
    by = settings.expert if settings.checkpoint is None else CORRECTED
    store = settings.output or store_path_for(env_config, settings.output_root / "demos", by)
    first_seed = 0 if settings.checkpoint is None else 50_000
    how = {"first_seed": first_seed if settings.first_seed is None else settings.first_seed, "codec": settings.codec}
    if settings.expert != "scripted":
        from pixio_robot.demos.collection.by_hand.teleoperation import record_by_hand

        if settings.parts is not None:
            raise UserError(
                f"parts={settings.parts} shares out what a script does: leave it out, or expert={settings.expert}."
            )
        record_by_hand(env_config, store, settings.episodes, settings.expert, **how)
        return
    if settings.parts is not None:
        from pixio_robot.demos.collection.in_parts import collect_part, join_parts

        first, attributes = how["first_seed"], store_attributes(env_config, how["first_seed"], by)
        seeds = range(first, min(first + settings.episodes, FIRST_EVALUATION_SEED))
        asked = {name: value for name, value in plain(settings).items() if name in ("env", "episodes", "takeover")}
        parts = settings.of(store, seeds, asked | {"first_seed": first, "expert": by, "weights": weights})
        if settings.part is not None:
            parts.make(
                lambda seeds, folder: collect_part(
                    env_config, folder, seeds, first, workers=settings.workers, corrected=corrected
                )
            )
            return
        join_parts(parts.joined(), store, settings.episodes, attributes, settings.codec)
    collect(env_config, store, settings.episodes, workers=settings.workers, corrected=corrected, **how)


if __name__ == "__main__":
    main()
