"""Render frames of randomised robot scenes into an image folder, for pretraining."""

from pathlib import Path

import hydra
from lerobot_env_pixio.scenes import FAMILIES, FrameFolder, render_folder
from omegaconf import DictConfig
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.text import Text

from pixio_robot.errors import UserError, exits_on_user_error


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.0f} frames/s")


@hydra.main(version_base=None, config_path="../configs", config_name="render_scenes")
@exits_on_user_error
def main(cfg: DictConfig) -> None:
    """Compose the description of the folder and render what is missing."""
    output = Path(cfg.output)
    with Progress("rendering", BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn()) as progress:
        bar = progress.add_task("rendering", total=cfg.frames)
        try:
            families = tuple(cfg.families or FAMILIES)
            folder = FrameFolder(cfg.frames, cfg.seed, cfg.image_size, families)
            present = render_folder(folder, output, cfg.workers, lambda n: progress.update(bar, completed=n))
        except ValueError as error:
            raise UserError(str(error)) from error
    print(f"{cfg.frames} frames in {output} ({present} of them were there before)")


if __name__ == "__main__":
    main()
