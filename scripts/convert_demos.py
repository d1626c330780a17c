"""Convert demonstrations between a store and a LeRobotDataset v3, a robomimic file or a replay buffer (zarr v2).

A store also becomes a single file for sharing, a store at a URL, or one of smaller frames.

uv run scripts/convert_demos.py outputs/demos/lift.zarr outputs/lift_lerobot
uv run scripts/convert_demos.py robomimic/lift_image.hdf5 outputs/demos/lift_robomimic.zarr
uv run scripts/convert_demos.py outputs/demos/lift.zarr outputs/lift.zarr.zip
uv run scripts/convert_demos.py outputs/demos/lift.zarr outputs/lift.demos.zip
"""

from omegaconf import DictConfig

from pixio_robot.cli.entry_points import entry_point


@entry_point("convert_demos", positional=("source", "destination"))
def main(cfg: DictConfig) -> None:
    """See configs/convert_demos.yaml for every choice."""
    from pixio_robot.demos.formats.conversion import convert

    convert(
        cfg.source,
        cfg.destination,
        format=cfg.format,
        fps=cfg.fps,
        use_videos=cfg.use_videos,
        image_size=cfg.image_size,
        codec=cfg.codec,
    )


if __name__ == "__main__":
    main()
