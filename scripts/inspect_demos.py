"""Look into a demonstration store: what it holds, pictures of it, and signs of damage.

uv run scripts/inspect_demos.py path=outputs/demos/lift.zarr
uv run scripts/inspect_demos.py path=outputs/demos/lift.zarr episode=3 video=false
uv run scripts/inspect_demos.py path=s3://bucket/lift.zarr output=lift_inspection
"""

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.settings import Count, Place, Switch, Text, Whole, settings


@settings(kw_only=True)
class InspectDemos:
    """Settings of the job."""

    path: Text
    """A demonstration store."""
    output: Place | None = None
    """Folder of inspection.json and pictures; null is outputs/inspections/<name of the store>."""
    episode: Whole = 0
    """Episode of the camera strip and the video, counted from 0."""
    video: Switch = True
    """Whether to make a video of the episode."""
    frozen_steps: Count | None = None
    """So many bit-identical frames, while the state moves, are a frozen camera; null is half a second, at least 5."""


@entry_point("inspect_demos", InspectDemos)
def main(settings: InspectDemos) -> None:
    """Look."""
    from pixio_robot.demos.inspection.report import run_inspection

    run_inspection(
        settings.path,
        settings.output,
        episode=settings.episode,
        video=settings.video,
        frozen_steps=settings.frozen_steps,
    )


if __name__ == "__main__":
    main()
