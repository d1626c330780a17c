"""Measure steps per second with cameras rendered: simulators as they ship, our render profiles, and the floor."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.errors import UserError, nearest_name


@entry_point("benchmark_rendering")
def main(cfg: DictConfig) -> None:
    """Compare every environment and print tables; see configs/benchmark_rendering.yaml."""
    from rendering_speed import compare, number_of_sides

    from pixio_robot.common.files import write_json
    from pixio_robot.common.progress import progress_bar
    from pixio_robot.common.versions import software_versions
    from pixio_robot.environments import env_config_from

    fields = OmegaConf.to_container(cfg)
    for name in fields["compare"]:
        if name not in fields["envs"]:
            raise UserError(f"There is no {name!r} among envs. {nearest_name(name, fields['envs'])}")
    configs: list[Any] = [env_config_from(fields["envs"][name]) for name in fields["compare"]]
    console = Console()
    comparisons = []
    with progress_bar("rounds", len(configs) * cfg.rounds * number_of_sides(), console) as advance:
        try:
            for config in configs:
                comparisons.append({"env": config.type, **compare(config, cfg.steps, cfg.rounds, advance)})
        except ValueError as error:
            raise UserError(str(error)) from error
    for comparison in comparisons:
        _print(comparison, console)
    if cfg.output:
        write_json(Path(cfg.output), {"versions": software_versions(), "comparisons": comparisons})
        console.print(f"record {cfg.output}", highlight=False, soft_wrap=True)


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
