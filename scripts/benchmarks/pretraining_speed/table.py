"""The speed ladder as a record and as a table on the terminal."""

import os
import platform
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from pixio_robot.pretraining.config import Precision, PretrainConfig
from pixio_robot.pretraining.model.cost import flops_per_image
from pretraining_speed.ceiling import matmul_ceiling
from pretraining_speed.ladder import Measurement, loss_deviation


def ladder_record(
    config: PretrainConfig, measurements: list[Measurement], threads: int, workers: int
) -> dict[str, Any]:
    """Summarise a run of `measure`; matmul ceilings are measured now, in the same process.

    Args:
        config: Settings of the run.
        measurements: The rungs from the plain trainer up; where low precision was tried, last the plain trainer in it.
        threads: torch's threads in the training process.
        workers: Worker processes of the plain trainer.
    """
    flops = flops_per_image(config)
    precisions: set[Precision] = {measurement.rung.precision for measurement in measurements}
    ceilings = {precision: matmul_ceiling(config, precision) for precision in precisions}
    reference = measurements[0]
    rows = [
        {
            "rung": measurement.rung.name,
            "precision": measurement.rung.precision,
            "compiled": measurement.compiled,
            "images_per_second": measurement.images_per_second,
            "cpu_ms_per_image": measurement.cpu_milliseconds,
            "speedup": measurement.images_per_second / reference.images_per_second,
            "cpu_ratio": reference.cpu_milliseconds / measurement.cpu_milliseconds,
            "ceiling_share": measurement.images_per_second * flops / ceilings[measurement.rung.precision],
            "loss_deviation": loss_deviation(measurement.losses, reference.losses),
            "tolerance": measurement.rung.tolerance,
        }
        for measurement in measurements
    ]
    same = [measurement for measurement in measurements if measurement.rung.precision == "float32"]
    top = measurements[-2] if len(precisions) > 1 else measurements[-1]
    ratios = {
        "end to end": top.images_per_second / reference.images_per_second,
        "both in float32": same[-1].images_per_second / reference.images_per_second,
    }
    if len(precisions) > 1:
        ratios[f"both in {top.rung.precision}"] = top.images_per_second / measurements[-1].images_per_second
    return {
        "variant": config.variant,
        "image_size": config.image_size,
        "batch_size": config.batch_size,
        "device": torch.cuda.get_device_name() if config.device.startswith("cuda") else platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads,
        "workers": workers,
        "torch": torch.__version__,
        "gflop_per_image": flops / 1e9,
        "matmul_ceiling_gflops": {precision: rate / 1e9 for precision, rate in ceilings.items()},
        "rows": rows,
        "ratios": ratios,
    }


def print_ladder(record: dict[str, Any], console: Console) -> None:
    """Print the rungs, the matmul ceilings and the ratios that count."""
    table = Table(title=f"{record['variant']} at {record['image_size']} px, batches of {record['batch_size']}")
    table.add_column("each rung adds to the one above")
    for heading in ("images/s", "speedup", "CPU ms/image", "CPU ratio", "of matmul ceiling", "loss off by (allowed)"):
        table.add_column(heading, justify="right")
    for index, row in enumerate(record["rows"]):
        if index and row["rung"].startswith(record["rows"][0]["rung"]):
            table.add_section()
        table.add_row(
            row["rung"],
            f"{row['images_per_second']:.1f}",
            f"{row['speedup']:.2f}×",
            f"{row['cpu_ms_per_image']:.1f}",
            f"{row['cpu_ratio']:.2f}×",
            f"{row['ceiling_share']:.0%}",
            f"{row['loss_deviation']:.1e} ({row['tolerance']:.0e})",
        )
    console.print(table)
    ceilings = ", ".join(f"{rate:.0f} in {name}" for name, rate in record["matmul_ceiling_gflops"].items())
    console.print(
        f"Matmul ceiling, GFLOP/s: {ceilings}; an image needs {record['gflop_per_image']:.2f} GFLOP. "
        f"{record['threads']} of {record['cores']} cores train."
    )
    console.print("Against the plain trainer: " + ", ".join(f"{v:.2f}× {k}" for k, v in record["ratios"].items()))
