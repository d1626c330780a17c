"""Convert demonstrations between a store and a LeRobotDataset v3, a robomimic file or a replay buffer (zarr v2).

A store also becomes a single file for sharing, a store at a URL, or one of smaller frames.

uv run scripts/convert_demos.py outputs/demos/lift.zarr outputs/lift_lerobot
uv run scripts/convert_demos.py robomimic/lift_image.hdf5 outputs/demos/lift_robomimic.zarr
uv run scripts/convert_demos.py outputs/demos/lift.zarr outputs/lift.demos.zip
"""

from typing import Literal

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.settings import Count, Switch, Text, settings


@settings(kw_only=True)
class ConvertDemos:
    """Settings of the job."""

    source: Text
    """A DemoStore (a folder, a zip file or a URL that fsspec opens, such as s3://bucket/lift.zarr) becomes another format. A
    LeRobotDataset v3 (folder), a robomimic file (.hdf5) or a replay buffer of diffusion policy or UMI (zarr v2, folder or
    .zarr.zip) becomes a DemoStore. The first argument without a = is it, too."""
    destination: Text
    """From a DemoStore, the name decides: .hdf5 makes a robomimic file, .zarr.zip a replay buffer, .demos.zip the store itself
    as a read-only file for sharing, a URL the store there, any other a LeRobotDataset. The second argument without a =."""
    format: Literal["store", "lerobot", "robomimic", "replay_buffer"] | None = None
    """What a DemoStore becomes, whatever the name says."""
    fps: Count | None = None
    """Control rate in Hz of a robomimic file or replay buffer that does not say it."""
    use_videos: Switch | None = None
    """For a LeRobotDataset: small lossy video, which null is, too, or lossless images (false)."""
    codec: Literal["lossless", "jpeg", "jpegxl"] | None = None
    """For a DemoStore: null is lossless; jpeg (quality 95) and jpegxl (distance 1) are smaller and lossy."""
    image_size: Count | None = None
    """For a DemoStore: resize frames to this many pixels a side; null keeps their size."""


@entry_point("convert_demos", ConvertDemos, positional=("source", "destination"))
def main(settings: ConvertDemos) -> None:
    """Convert."""
    from pixio_robot.demos.formats.conversion import convert

    convert(
        settings.source,
        settings.destination,
        format=settings.format,
        fps=settings.fps,
        use_videos=settings.use_videos,
        image_size=settings.image_size,
        codec=settings.codec,
    )


if __name__ == "__main__":
    main()
