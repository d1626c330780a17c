"""Measure the success rate of a policy checkpoint in simulation.

uv run scripts/evaluate_policy.py checkpoint=latest
uv run scripts/evaluate_policy.py checkpoint=<pretrained_model> env=robosuite_stack episodes=200 workers=8 run=stack
uv run scripts/evaluate_policy.py checkpoint=<pretrained_model> 'perturbations=[light,camera,distractors]'

With `perturbations` it is measured under each of them, too, on the same seeds, and compared with the task as it is.
In parts, at once on any machines: episodes=1000 run=big part=1 parts=4, and so on; the same with parts=4 alone makes one result.
"""

import contextlib
import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.errors import UserError
from pixio_robot.common.settings import Count, Place, Positive, Text, Whole, plain, save, settings
from pixio_robot.common.storage.parts import Parts
from pixio_robot.common.workers import start_server
from pixio_robot.environments import EnvDescription


@settings(kw_only=True)
class EvaluatePolicy(Parts):
    """Settings of the job."""

    env: EnvDescription = dataclasses.field(default_factory=dict)
    """The task; by default that of the training, and env.NAME=… changes a field of it."""
    checkpoint: Place
    """A pretrained_model folder; or a run's folder or name, or `latest`."""
    episodes: Count = 50
    """Rollouts, of all tasks together."""
    first_seed: Whole = 100000
    """Seed of the first; the others follow."""
    workers: Count = 2
    """Processes."""
    batch_size: Count = 1
    """Episodes that a worker runs side by side with one call of the policy; pays with large encoders and GPUs."""
    time_limit: Positive = 600
    """Seconds until an episode that does not end is given up, repeated once, and reported."""
    perturbations: tuple[Text, ...] | None = None
    """Such as [light,camera,table_texture,table_colour,distractors]: each is measured on the same seeds."""
    videos: Whole = 6
    """Most videos that are kept."""
    output_root: Place = Path("outputs")
    """Folder of everything that is written."""
    run: Text | None = None
    """Name of the folder of the result under `<output_root>/evaluate_policy`; null takes the time."""


@entry_point("evaluate_policy", EvaluatePolicy)
def main(settings: EvaluatePolicy) -> None:
    """Roll the policy out."""
    start_server(["pixio_robot.evaluation.rollouts.evaluate"])
    from pixio_robot.common.storage.files import write_json
    from pixio_robot.engine.run_folder import new_run_dir
    from pixio_robot.engine.run_log import RunLog
    from pixio_robot.environments import describe_env, env_config_meant
    from pixio_robot.evaluation.checkpoints import find_checkpoint, run_information
    from pixio_robot.evaluation.robustness.evaluate import (
        NOMINAL,
        Condition,
        as_json,
        as_table,
        conditions_of_parts,
        evaluate_under_perturbations,
        perturbed_configs,
        save_picture,
    )
    from pixio_robot.reports.page import write_report

    console = Console()
    names = settings.perturbations
    checkpoint = find_checkpoint(settings.checkpoint, settings.output_root, console)
    env_config = env_config_meant(settings.env, run_information(checkpoint).get("env"), str(checkpoint))
    settings = dataclasses.replace(settings, env=describe_env(env_config))
    configs = perturbed_configs(env_config, names) if names is not None else {NOMINAL: env_config}
    seeds = range(settings.first_seed, settings.first_seed + settings.episodes)
    runs = settings.output_root / "evaluate_policy"

    def roll_out(seeds: Sequence[int], folder: Path) -> list[Condition]:
        return evaluate_under_perturbations(
            checkpoint,
            configs,
            seeds,
            folder,
            workers=settings.workers,
            batch_size=settings.batch_size,
            time_limit=settings.time_limit,
            n_videos=settings.videos,
            console=console,
        )

    def roll_out_part(seeds: Sequence[int], folder: Path) -> None:
        if folder.exists():  # of a run that was stopped
            shutil.rmtree(folder)
        roll_out(seeds, folder)

    folders = None
    if settings.parts is not None:
        if settings.run is None:
            raise UserError("Parts meet under the name of a run: add run=NAME.")
        parts = settings.of(runs / settings.run, seeds, _made_by(settings, checkpoint), settings.batch_size)
        if settings.part is not None:
            parts.make(roll_out_part)
            return
        folders = parts.joined()
    run_dir = new_run_dir(runs, settings.run)
    try:
        conditions = (
            roll_out(seeds, run_dir)
            if folders is None
            else conditions_of_parts(folders, configs, run_dir, settings.videos)
        )
    except UserError:
        with contextlib.suppress(OSError):  # something has been measured
            run_dir.rmdir()
        raise
    record = conditions[0].record
    seconds = sum(condition.record.seconds for condition in conditions)
    RunLog(run_dir, console).write("evaluation", event="finished", seconds=round(seconds, 1))
    save(settings, run_dir / "config.yaml")
    write_json(run_dir / "environment.json", record.versions)
    if names is not None:
        write_json(run_dir / "perturbations.json", as_json(conditions))
        save_picture(conditions, run_dir / "pictures" / "success_under_perturbations.png")
        console.print(as_table(conditions))
    else:
        console.print(f"[bold green]{record.summary()}", highlight=False)
    console.print(f"report {write_report(run_dir, record.as_json())}", highlight=False, soft_wrap=True)


def _made_by(settings: EvaluatePolicy, checkpoint: Path) -> dict[str, Any]:
    """Return what the result depends on; a checkpoint may lie elsewhere on another machine, and `latest` may move on."""
    from pixio_robot.common.storage.kept import checksums

    names = ("env", "episodes", "first_seed", "batch_size", "perturbations", "videos")
    weights = checksums(checkpoint, "model.safetensors").get("model.safetensors", "missing")
    return {name: value for name, value in plain(settings).items() if name in names} | {"weights": weights}


if __name__ == "__main__":
    main()
