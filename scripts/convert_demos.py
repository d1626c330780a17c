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
from pixio_robot.errors import UserError, exits_on_user_error


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


@exits_on_user_error
def run() -> None:
    """Take two arguments without a ``=`` as source and destination, in this order."""
    sys.argv[1:] = _named(sys.argv[1:])
    main()


def _named(arguments: list[str]) -> list[str]:
    keys = [key for key in ("source", "destination") if not any(text.startswith(f"{key}=") for text in arguments)]
    named = []
    for argument in arguments:
        if "=" in argument or argument.startswith("-"):
            named.append(argument)
        elif keys:
            named.append(f"{keys.pop(0)}={_quoted(argument)}")
        else:
            raise UserError(f"{argument!r} is one path too many: give a source and a destination, then KEY=VALUE.")
    return named


def _quoted(path: str) -> str:
    """Quote as Hydra reads it: backslashes count only before a quote."""
    if "${" in path:
        raise UserError(f"{path!r} has '${{' in it, which Hydra takes for a reference: rename it or give a link to it.")
    return "'" + re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + match[2].replace("'", r"\'"), path) + "'"


if __name__ == "__main__":
    run()
