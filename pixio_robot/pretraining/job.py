"""One call of a training script: processes join, images are opened, a run folder is chosen, training runs."""

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.common.settings import plain
from pixio_robot.common.signals import requests_raise
from pixio_robot.common.storage.documents import read_yaml
from pixio_robot.common.storage.files import write_text
from pixio_robot.common.storage.json_lines import read_lines
from pixio_robot.engine.processes import join_processes
from pixio_robot.engine.run_folder import CONFIG_FILE, begun_run_dir, run_to_resume, with_changes
from pixio_robot.pretraining.config import CHANGEABLE, TrainingConfig
from pixio_robot.pretraining.images import Images
from pixio_robot.pretraining.model.weights import ENCODER_FILE
from pixio_robot.pretraining.objectives.base import ImageObjective
from pixio_robot.pretraining.sources import open_source
from pixio_robot.pretraining.trainer import train


@dataclass(frozen=True)
class PretrainingJob[C: TrainingConfig]:
    """Everything that decides a run.

    Attributes:
        group: `pretraining` or `distillation`, the name of the settings.
        settings: Of the training.
        images: Source of the images; see `open_source`.
        cache_dir: Where images decoded once are kept.
        output_root: Where runs are.
    """

    group: str
    settings: C
    images: Images | Mapping[str, Any]
    cache_dir: str
    output_root: str

    def save(self, path: Path) -> None:
        """Write the job as YAML."""
        values = {
            self.group: plain(self.settings),
            "images": plain(self.images),
            "cache_dir": self.cache_dir,
            "output_root": self.output_root,
        }
        write_text(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))

    def continued(self, run_dir: Path, given: Mapping[str, Any]) -> tuple[Self, list[str]]:
        """Return the job of a run folder with the settings that its continuation was given, and what changed.

        Raises:
            UserError: The folder holds no such run, or a setting cannot change in the middle of a run.
        """
        values = read_yaml(run_dir / CONFIG_FILE)
        if not isinstance(values, dict) or not {self.group, "images", "cache_dir"} <= values.keys():
            raise UserError(
                f"{run_dir / CONFIG_FILE} is not the config of a run of {self.group} by this version: start a new run."
            )
        changeable = frozenset([*(f"{self.group}.{name}" for name in CHANGEABLE), "images.workers", "cache_dir"])
        values, changes = with_changes(values, given, changeable, run_dir)
        settings = type(self.settings)(**values[self.group])
        if settings.steps is None and any(change.startswith(f"{self.group}.batch_size ") for change in changes):
            raise UserError(
                f"With {settings.batch_size} images a step the epochs of {run_dir} no longer say how many steps there are: give "
                f"{self.group}.steps=N {self.group}.epochs=null, too."
            )
        job = dataclasses.replace(self, settings=settings, images=values["images"], cache_dir=values["cache_dir"])
        return job, changes


@requests_raise()
def run_job[C: TrainingConfig](
    job: PretrainingJob[C],
    objective: Callable[[C], ImageObjective[C]],
    script: str,
    resume: str | None,
    *,
    run: str | None = None,
    given: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> Path:
    """Train, and say where the output goes and where the encoder is.

    Args:
        job: The run; when resuming, the run folder's own settings count.
        objective: Builds what is minimised.
        script: Name of the job, which is that of the folder of its runs.
        resume: See `run_to_resume`.
        run: The user's name for the run folder; None takes the time.
        given: When resuming, the settings that were given beside it, by dotted names.
        console: Where progress is shown.

    Returns:
        The encoder's weights file.

    Raises:
        UserError: There is no such run, settings do not fit, or see `train`.
    """
    runs = Path(job.output_root) / script
    resumed = run_to_resume(runs, run, resume, ENCODER_FILE)
    changes: list[str] = []
    if resumed is not None:
        job, changes = job.continued(resumed, given or {})
    settings = job.settings
    processes = join_processes(settings.device, settings.distribution, settings.precision)
    settings.check_shared_by(processes.count)
    console = (console or Console()) if processes.main else Console(quiet=True)
    with processes.one_after_another():
        source = open_source(job.images, Path(job.cache_dir))
    folder = processes.share(begun_run_dir(runs, run, resume, resumed) if processes.main else runs)
    if processes.main and (resumed is None or changes):
        job.save(folder / CONFIG_FILE)
    count = "a stream of" if source.images is None else source.images
    said = ""
    if resumed is not None:
        differ = [*changes, *other_processes(folder, processes.count)]
        said = ", continued" + (f" with {', '.join(differ)}" if differ else "")
    console.print(f"{count} images, output in {folder}{said}", highlight=False, soft_wrap=True)
    try:
        encoder = train(settings, objective, source, folder, True, processes, console)
    except UserError:
        if resumed is None and processes.main and not any("loss" in line for line in read_lines(folder / "log.jsonl")):
            shutil.rmtree(folder)
        raise
    except KeyboardInterrupt:
        console.print(f"[yellow]stopped; continue with resume={folder}", soft_wrap=True)
        raise
    console.print(f"encoder: {encoder}", highlight=False, soft_wrap=True)
    return encoder


def other_processes(run_dir: Path, processes: int) -> list[str]:
    """Say in words where a run was begun by another number of processes, which changes losses by rounding alone."""
    begun = next(
        (line.get("processes") for line in read_lines(run_dir / "log.jsonl") if "processes" in line), processes
    )
    return [f"processes {begun} → {processes}"] * (begun != processes)
