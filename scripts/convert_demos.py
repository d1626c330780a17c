"""Convert demonstrations between a store and a LeRobotDataset v3, a robomimic file or a replay buffer (zarr v2).

uv run scripts/convert_demos.py outputs/demos/lift.zarr outputs/lift_lerobot
uv run scripts/convert_demos.py robomimic/lift_image.hdf5 outputs/demos/lift_robomimic.zarr
uv run scripts/convert_demos.py outputs/demos/lift.zarr outputs/lift.zarr.zip
"""

import re
import sys
from pathlib import Path

from omegaconf import DictConfig

from pixio_robot.entry_points import entry_point


@entry_point("convert_demos")
def main(cfg: DictConfig) -> None:
    """See configs/convert_demos.yaml for every choice."""
    from pixio_robot.demos.conversion import convert

    convert(
        Path(cfg.source),
        Path(cfg.destination),
        format=cfg.format,
        fps=cfg.fps,
        use_videos=cfg.use_videos,
        image_size=cfg.image_size,
    )


def name_paths(arguments: list[str]) -> list[str]:
    """Write arguments without a ``=`` as Hydra's `source` and `destination`, in this order and quoted."""
    names = iter(["source", "destination"])
    return [
        argument if "=" in argument or argument.startswith("-") else f"{next(names, 'unexpected')}={_quoted(argument)}"
        for argument in arguments
    ]


def _quoted(path: str) -> str:
    """Quote as Hydra reads it: backslashes count only before a quote, and ``${`` would be an interpolation."""
    escaped = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + match[2].replace("'", r"\'"), path)
    return "'" + escaped.replace("${", r"\${") + "'"


if __name__ == "__main__":
    sys.argv[1:] = name_paths(sys.argv[1:])
    main()
