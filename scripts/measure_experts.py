"""Measure how often scripted experts solve their tasks, with the noise that they record and without rendering.

uv run scripts/measure_experts.py env=aloha_insertion seeds=100
uv run scripts/measure_experts.py env=metaworld 'tasks=[all]' seeds=10
uv run scripts/measure_experts.py env=robosuite_lift env.robot=UR5e output=ur5e.json
"""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.errors import UserError
from pixio_robot.common.settings import Count, Place, Text, Whole, settings
from pixio_robot.environments import EnvDescription


@settings(kw_only=True)
class MeasureExperts:
    """Settings of the job."""

    env: EnvDescription
    """The task, and how it is controlled."""
    tasks: tuple[Text, ...] = ()
    """In place of env.task: names, or [all] for every task of the environment."""
    seeds: Count = 100
    """Episodes of each task."""
    first_seed: Whole = 0
    """Seed of the first; the others follow."""
    delay: Whole = 0
    """How many steps old what the expert sees is: a policy that looks every eighth step acts on what is up to seven old."""
    workers: Count | None = None
    """Processes; null takes every core."""
    output: Place | None = None
    """A JSON file for every episode's outcome."""


@entry_point("measure_experts", MeasureExperts)
def main(settings: MeasureExperts) -> None:
    """Try every task with every seed."""
    import dataclasses

    from pixio_robot.common.progress import progress_bar
    from pixio_robot.common.statistics import wilson_interval
    from pixio_robot.common.storage.files import write_json
    from pixio_robot.common.versions import software_versions
    from pixio_robot.demos.collection.expert_success import try_expert
    from pixio_robot.environments import env_config_from

    tasks = _tasks(settings.env["type"], settings.tasks) or [settings.env["task"]]
    configs = [env_config_from({**settings.env, "task": task}) for task in tasks]
    seeds = range(settings.first_seed, settings.first_seed + settings.seeds)
    console, found = Console(), {}
    with progress_bar("episodes", len(configs) * len(seeds), console) as advance:
        for task, config in zip(tasks, configs, strict=True):
            found[task] = try_expert(config, seeds, delay=settings.delay, workers=settings.workers, advance=advance)
    table = Table("task", title=f"{settings.env['type']}, seeds {seeds[0]} to {seeds[-1]}")
    for heading in ("successes", "95 % interval", "mean steps of those"):
        table.add_column(heading, justify="right")
    for task, trials in found.items():
        steps = [trial.steps for trial in trials if trial.success]
        low, high = wilson_interval(len(steps), len(trials))
        mean = f"{sum(steps) / len(steps):.0f}" if steps else ""
        table.add_row(task, f"{len(steps)} of {len(trials)}", f"{100 * low:.1f}–{100 * high:.1f} %", mean)
    everything = [trial for trials in found.values() for trial in trials]
    console.print(table)
    console.print(
        f"{sum(trial.success for trial in everything)} of {len(everything)} episodes succeeded", highlight=False
    )
    if settings.output:
        record = {task: [dataclasses.asdict(trial) for trial in trials] for task, trials in found.items()}
        write_json(settings.output, {"env": settings.env, "versions": software_versions(), "tasks": record})
        console.print(f"record {settings.output}", highlight=False, soft_wrap=True)


def _tasks(env_type: str, names: Sequence[str]) -> list[str]:
    """Return the tasks to measure; `all` stands for all of the environment's."""
    from lerobot.envs import EnvConfig
    from lerobot.utils.import_utils import register_third_party_plugins

    if list(names) != ["all"]:
        return list(names)
    register_third_party_plugins()
    choices = EnvConfig.get_known_choices()
    tasks = getattr(choices.get(env_type), "tasks", None)
    if tasks is None:
        raise UserError(f"The environment {env_type!r} does not list its tasks: name them, as in tasks=[a,b].")
    return tasks()


if __name__ == "__main__":
    main()
