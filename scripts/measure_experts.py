"""Measure how often scripted experts solve their tasks, with the noise that they record and without rendering.

uv run scripts/measure_experts.py env=aloha_insertion seeds=100
uv run scripts/measure_experts.py env=metaworld 'tasks=[all]' seeds=10
"""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.errors import UserError


@entry_point("measure_experts")
def main(cfg: DictConfig) -> None:
    """See configs/measure_experts.yaml for every choice."""
    import dataclasses

    from pixio_robot.common.files import write_json
    from pixio_robot.common.progress import progress_bar
    from pixio_robot.common.statistics import wilson_interval
    from pixio_robot.common.versions import software_versions
    from pixio_robot.demos.collection.expert_success import try_expert
    from pixio_robot.environments import env_config_from

    fields = OmegaConf.to_container(cfg)
    tasks = _tasks(fields["env"]["type"], fields["tasks"]) or [fields["env"]["task"]]
    configs = [env_config_from({**fields["env"], "task": task}) for task in tasks]
    seeds = range(cfg.first_seed, cfg.first_seed + cfg.seeds)
    console, found = Console(), {}
    with progress_bar("episodes", len(configs) * len(seeds), console) as advance:
        for task, config in zip(tasks, configs, strict=True):
            found[task] = try_expert(config, seeds, workers=cfg.workers, advance=advance)
    table = Table("task", title=f"{fields['env']['type']}, seeds {seeds[0]} to {seeds[-1]}")
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
    if cfg.output:
        record = {task: [dataclasses.asdict(trial) for trial in trials] for task, trials in found.items()}
        write_json(Path(cfg.output), {"env": fields["env"], "versions": software_versions(), "tasks": record})
        console.print(f"record {cfg.output}", highlight=False, soft_wrap=True)


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
