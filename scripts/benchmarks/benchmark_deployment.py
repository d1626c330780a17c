"""Latency of exported policies beside LeRobot's eager ACT, from camera frames to actions, in one process.

uv run scripts/benchmarks/benchmark_deployment.py
uv run scripts/benchmarks/benchmark_deployment.py 'precisions=[float32,int8]' threads=4
uv run scripts/benchmarks/benchmark_deployment.py '~encoders' '+encoders={tiny: {name: pixio_tiny16}}' policy=diffusion
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.settings import Count, Place, plain, settings
from pixio_robot.encoders.config import EncoderConfig


@settings(kw_only=True)
class BenchmarkDeployment:
    """Settings of the job."""

    policy: dict[str, Any]
    """The policy on every encoder."""
    encoders: dict[str, EncoderConfig] = dataclasses.field(default_factory=dict)
    """Encoders; time does not depend on weights."""
    precisions: tuple[Literal["float32", "float16", "bfloat16", "int8"], ...] = ("float32",)
    """Of the encoders."""
    image_size: Count = 128
    """Side of the frames in pixels."""
    threads: Count = 1
    """torch's."""
    rounds: Count = 5
    """In turn: every artifact, then every artifact again."""
    calls: Count = 40
    """Calls of each in a round."""
    output: Place = Path("outputs/benchmark_deployment.json")
    """The record."""


@entry_point("benchmark_deployment", BenchmarkDeployment, configs=Path(__file__).parent / "configs")
def main(settings: BenchmarkDeployment) -> None:
    """Measure and print a table."""
    from latency import measure_latency, rows_to_json

    from pixio_robot.common.storage.files import write_json
    from pixio_robot.common.versions import software_versions

    console = Console()
    rows = measure_latency(
        settings.encoders,
        settings.policy,
        precisions=settings.precisions,
        image_size=settings.image_size,
        threads=settings.threads,
        rounds=settings.rounds,
        calls=settings.calls,
        say=lambda text: console.print(text, highlight=False),
    )
    record = rows_to_json(rows)
    title = (
        f"two cameras of {settings.image_size} px, {settings.threads} thread(s), {settings.rounds} rounds of "
        f"{settings.calls} calls"
    )
    table = Table(title=title)
    table.add_column("")
    for heading in ("parameters (M)", "p50 (ms)", "p95 (ms)", "p99 (ms)", "p50 ÷ LeRobot's"):
        table.add_column(heading, justify="right")
    for row in record:
        figures = [f"{row[key]:.1f}" for key in ("parameters", "p50", "p95", "p99")]
        table.add_row(row["name"], *figures, f"{row['ratio']:.2f}")
    console.print(table)
    write_json(settings.output, {"versions": software_versions(), "config": plain(settings), "rows": record})
    console.print(f"record {settings.output}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
