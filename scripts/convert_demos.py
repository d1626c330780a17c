"""Convert a demonstration store to a LeRobotDataset v3 in a local folder, or the other way round.

uv run scripts/convert_demos.py source=outputs/demos/lift.zarr destination=outputs/lift_lerobot
"""

from pathlib import Path

from omegaconf import DictConfig

from pixio_robot.entry_points import entry_point


@entry_point("convert_demos")
def main(cfg: DictConfig) -> None:
    """See configs/convert_demos.yaml for every choice."""
    from pixio_robot.demos.lerobot_format import convert

    convert(Path(cfg.source), Path(cfg.destination), use_videos=cfg.use_videos, image_size=cfg.image_size)


if __name__ == "__main__":
    main()
