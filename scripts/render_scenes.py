"""Render frames of randomised robot scenes into tar shards, for pretraining; a second run continues where the first stopped.

uv run scripts/render_scenes.py
uv run scripts/render_scenes.py frames=300000 workers=16 output=outputs/many_frames
uv run scripts/render_scenes.py 'families=[lift_panda,door_iiwa]' image_size=224

In parts, at once on machines that share the folder: frames=300000 part=1 parts=8, and so on; the same with parts=8 alone looks
that all is there.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.errors import UserError
from pixio_robot.common.settings import Count, Place, Text, Whole, settings
from pixio_robot.common.storage.parts import Parts


@settings(kw_only=True)
class RenderScenes(Parts):
    """Settings of the job."""

    output: Place = Path("outputs/frames")
    """Folder of the shards."""
    frames: Count = 30000
    """How many."""
    seed: Whole = 0
    """Seed of the scenes."""
    workers: Count = 2
    """Processes."""
    image_size: Count = 160
    """Side of the frames in pixels."""
    families: tuple[Text, ...] | None = None
    """Scene families such as [lift_panda,door_iiwa]; null takes all."""


@entry_point("render_scenes", RenderScenes)
def main(settings: RenderScenes) -> None:
    """Compose the description of the shards and render what is missing."""
    from lerobot_env_pixio.scenes import FAMILIES, FrameShards, missing_shards, render_shards

    from pixio_robot.common.progress import phase_progress

    output = settings.output
    try:
        shards = FrameShards(settings.frames, settings.seed, settings.image_size, settings.families or tuple(FAMILIES))
    except ValueError as error:
        raise UserError(str(error)) from error

    def render(names: Sequence[str]) -> None:
        total = sum(len(shards.shard_indices(shards.shard_names.index(name))) for name in names)
        with phase_progress(Console()) as progress:
            bar = progress.add_task("rendering", total=total, note="")
            try:
                present = render_shards(
                    shards, output, settings.workers, lambda n: progress.update(bar, completed=n), names
                )
            except ValueError as error:
                raise UserError(str(error)) from error
        print(f"{total} frames in {output} ({present} of them were there before)")

    if settings.parts is None:
        render(shards.shard_names)
        return
    parts = settings.of(output, shards.shard_names, asdict(shards))
    if settings.part is not None:
        parts.make(lambda names, _: render(names))
        return
    parts.joined()
    if missing := missing_shards(shards, output):
        raise UserError(
            f"{output} lacks {missing[0]}{f' and {len(missing) - 1} more' if missing[1:] else ''} although all parts were made: "
            "copy them there, or render what is missing without part= and parts=."
        )
    render(shards.shard_names)


if __name__ == "__main__":
    main()
