"""Render frames of randomised robot scenes into tar shards, for pretraining; a second run continues where the first stopped.

uv run scripts/render_scenes.py
uv run scripts/render_scenes.py frames=300000 workers=16 output=outputs/many_frames
uv run scripts/render_scenes.py 'families=[lift_panda,door_iiwa]' image_size=224
"""

from pathlib import Path

from rich.console import Console

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.errors import UserError
from pixio_robot.common.settings import Count, Place, Text, Whole, settings


@settings(kw_only=True)
class RenderScenes:
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
    from lerobot_env_pixio.scenes import FAMILIES, FrameShards, render_shards

    from pixio_robot.common.progress import phase_progress

    with phase_progress(Console()) as progress:
        bar = progress.add_task("rendering", total=settings.frames, note="")
        try:
            families = settings.families or tuple(FAMILIES)
            shards = FrameShards(settings.frames, settings.seed, settings.image_size, families)
            present = render_shards(
                shards, settings.output, settings.workers, lambda n: progress.update(bar, completed=n)
            )
        except ValueError as error:
            raise UserError(str(error)) from error
    print(f"{settings.frames} frames in {settings.output} ({present} of them were there before)")


if __name__ == "__main__":
    main()
