"""Measure steps per second with cameras rendered: simulators as they ship, our render profiles, and the floor.

uv run scripts/benchmarks/benchmark_rendering.py
uv run scripts/benchmarks/benchmark_rendering.py 'compare=[lift]' steps=100 output=rendering.json
uv run scripts/benchmarks/benchmark_rendering.py +env@envs.stack=robosuite_stack 'compare=[lift,stack]'

All in one process, in turn: the simulator as it ships, each render profile, frames with no geometry in them, and physics alone.
Some four minutes on an idle machine.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.common.settings import Count, Place, Text, settings
from pixio_robot.environments import EnvDescription


@settings(kw_only=True)
class BenchmarkRendering:
    """Settings of the job."""

    envs: dict[str, EnvDescription]
    """Tasks by names of the user's; others join as +env@envs.stack=robosuite_stack."""
    compare: tuple[Text, ...] = ("lift", "metaworld")
    """Which of `envs`."""
    steps: Count = 40
    """Steps of a round."""
    rounds: Count = 5
    """Interleaved: all sides, then all sides again."""
    output: Place | None = None
    """A JSON file for the tables."""


@entry_point("benchmark_rendering", BenchmarkRendering, configs=Path(__file__).parent / "configs")
def main(settings: BenchmarkRendering) -> None:
    """Compare every environment and print tables."""
    from rendering_speed import compare, number_of_sides

    from pixio_robot.common.progress import progress_bar
    from pixio_robot.common.storage.files import write_json
    from pixio_robot.common.versions import software_versions
    from pixio_robot.environments import env_config_from

    for name in settings.compare:
        if name not in settings.envs:
            raise UserError(f"There is no {name!r} among envs. {nearest_name(name, settings.envs)}")
    configs: list[Any] = [env_config_from(settings.envs[name]) for name in settings.compare]
    console = Console()
    comparisons = []
    with progress_bar("rounds", len(configs) * settings.rounds * number_of_sides(), console) as advance:
        try:
            for config in configs:
                comparisons.append({"env": config.type, **compare(config, settings.steps, settings.rounds, advance)})
        except ValueError as error:
            raise UserError(str(error)) from error
    for comparison in comparisons:
        _print(comparison, console)
    if settings.output:
        write_json(settings.output, {"versions": software_versions(), "comparisons": comparisons})
        console.print(f"record {settings.output}", highlight=False, soft_wrap=True)


def _print(comparison: Mapping[str, Any], console: Console) -> None:
    cameras = comparison["cameras"]
    table = Table(
        title=f"{comparison['env']} {comparison['task']}, {comparison['image_size']} px: {', '.join(cameras)}"
    )
    table.add_column("")
    for heading in ("steps/s", "ratio", "over rounds", "CPU ms a step", "CPU ratio"):
        table.add_column(heading, justify="right")
    for name, side in comparison["sides"].items():
        low, high = side["ratio_range"]
        table.add_row(
            name,
            f"{side['steps_per_second']:.1f}",
            f"{side['ratio']:.1f}",
            f"{low:.1f}–{high:.1f}",
            f"{side['cpu_ms_per_step']:.1f}",
            f"{side['cpu_ratio']:.1f}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
