"""Render frames of randomised robot scenes into tar shards, for pretraining."""

from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.errors import UserError


@entry_point("render_scenes")
def main(cfg: DictConfig) -> None:
    """Compose the description of the shards and render what is missing."""
    from lerobot_env_pixio.scenes import FAMILIES, FrameShards, render_shards

    from pixio_robot.common.progress import phase_progress

    output = Path(cfg.output)
    with phase_progress(Console()) as progress:
        bar = progress.add_task("rendering", total=cfg.frames, note="")
        try:
            families = tuple(cfg.families or FAMILIES)
            shards = FrameShards(cfg.frames, cfg.seed, cfg.image_size, families)
            present = render_shards(shards, output, cfg.workers, lambda n: progress.update(bar, completed=n))
        except ValueError as error:
            raise UserError(str(error)) from error
    print(f"{cfg.frames} frames in {output} ({present} of them were there before)")


if __name__ == "__main__":
    main()
