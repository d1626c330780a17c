"""Latency of exported policies beside LeRobot's eager ACT, from camera frames to actions, in one process."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from pixio_robot.cli.entry_points import entry_point


@entry_point("benchmark_deployment")
def main(cfg: DictConfig) -> None:
    """Measure and print a table; see configs/benchmark_deployment.yaml."""
    from latency import measure_latency, rows_to_json

    from pixio_robot.common.files import write_json
    from pixio_robot.common.versions import software_versions
    from pixio_robot.encoders import EncoderConfig

    fields = OmegaConf.to_container(cfg)
    assert isinstance(fields, dict)
    encoders = {name: EncoderConfig(**encoder) for name, encoder in fields["encoders"].items()}
    console = Console()
    rows = measure_latency(
        encoders,
        fields["policy"],
        precisions=fields["precisions"],
        image_size=cfg.image_size,
        threads=cfg.threads,
        rounds=cfg.rounds,
        calls=cfg.calls,
        say=lambda text: console.print(text, highlight=False),
    )
    record = rows_to_json(rows)
    title = f"two cameras of {cfg.image_size} px, {cfg.threads} thread(s), {cfg.rounds} rounds of {cfg.calls} calls"
    table = Table(title=title)
    table.add_column("")
    for heading in ("parameters (M)", "p50 (ms)", "p95 (ms)", "p99 (ms)", "p50 ÷ LeRobot's"):
        table.add_column(heading, justify="right")
    for row in record:
        figures = [f"{row[key]:.1f}" for key in ("parameters", "p50", "p95", "p99")]
        table.add_row(row["name"], *figures, f"{row['ratio']:.2f}")
    console.print(table)
    output = Path(cfg.output)
    write_json(output, {"versions": software_versions(), "config": fields, "rows": record})
    console.print(f"record {output}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
