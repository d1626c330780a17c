"""The trainer itself on a GPU, as `scripts/pretrain_encoder.py` runs it, against the rates that it shall reach.

Beside each the plain trainer in bfloat16, on the same images in the same run; the rate of the 8192³ product is measured by the
trainer (`mfu` in its log).
"""

import dataclasses
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from pixio_robot.common.storage.json_lines import read_lines
from pixio_robot.images.config import Photometric
from pixio_robot.pretraining.config import PretrainConfig
from pixio_robot.pretraining.sources import folder_images
from pixio_robot.pretraining.trainer import pretrain
from pretraining_speed.ladder import SIDE, Rung, measure, write_images

_PLAIN = Rung("plain trainer in bfloat16", precision="bfloat16")
_WARM = 0.5  # share of the steps after which the rate counts: before, blocks are compiled


@dataclass(frozen=True)
class Target:
    """A training and the rate that it shall reach.

    Attributes:
        config: Of the training; its steps are those that are timed and as many before.
        mfu: Share of the device's product rate; None where images count.
        images_per_second: Augmentation included; None where the share counts.
    """

    config: PretrainConfig
    mfu: float | None = None
    images_per_second: float | None = None


def targets(device: str, steps: int) -> list[Target]:
    """Return what is to be reached: ViT-H and ViT-B at 256 px with the paper's decoder, and `pixio_tiny16` at 128 px.

    Args:
        device: A GPU.
        steps: Of ViT-H; smaller encoders take more.
    """
    fast: dict[str, Any] = {"precision": "bfloat16", "residual": "bfloat16", "compile_blocks": True, "accumulation": 1}
    fast |= {"device": device, "lr": 1e-4, "checkpoint_minutes": 1e6, "photometric": Photometric()}
    paper = {"image_size": 256, "mask_block": 4, "decoder_dim": 512, "decoder_depth": 32, "decoder_heads": 16}
    return [
        Target(PretrainConfig(variant="pixio_vith16", batch_size=128, steps=steps, **paper, **fast), mfu=0.5),
        Target(PretrainConfig(variant="pixio_vitb16", batch_size=256, steps=2 * steps, **paper, **fast), mfu=0.45),
        Target(
            PretrainConfig(variant="pixio_tiny16", batch_size=2048, steps=8 * steps, **fast), images_per_second=20_000
        ),
    ]


def reached(target: Target, images: int, plain_steps: int, workers: int, progress: Progress) -> dict[str, Any]:
    """Train, and return what was reached as plain values.

    Args:
        target: What is trained.
        images: Number of synthetic images.
        plain_steps: Steps of the plain trainer; 0 leaves it out.
        workers: Processes of the plain trainer's data loader.
        progress: Of the plain trainer.
    """
    config = target.config
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "images").mkdir()
        write_images(folder / "images", images)
        pretrain(config, folder_images(folder / "images", folder / "cache", SIDE), folder / "run")
        lines = [line for line in read_lines(folder / "run" / "log.jsonl") if "images_per_second" in line]
    timed = lines[round(_WARM * len(lines)) :]
    found = {
        name: statistics.median(line[name] for line in timed) if all(name in line for line in timed) else None
        for name in ("images_per_second", "mfu", "data_wait", "memory_gib")
    }
    plain = None
    if plain_steps:
        (measured,) = measure(
            dataclasses.replace(config, residual="float32"), [_PLAIN], plain_steps, 1, images, workers, progress
        )
        plain = measured.images_per_second
    aim = {"mfu": target.mfu, "images_per_second": target.images_per_second}
    name, wanted = next((name, value) for name, value in aim.items() if value is not None)
    got = found[name]
    return {
        "variant": config.variant,
        "image_size": config.image_size,
        "batch_size": config.batch_size,
        **found,
        "plain_images_per_second": plain,
        "target": {name: wanted},
        "reached": None if got is None else got >= wanted,
    }


def print_targets(records: list[dict[str, Any]], console: Console) -> None:
    """Print a row for each training."""
    table = Table("", "px", "images/s", "share of 8192³", "waits for data", "GiB", "plain trainer", "target", "reached")
    for record in records:
        (name, wanted), *_ = record["target"].items()
        said = {None: "not measured here", True: "yes", False: "no"}[record["reached"]]
        table.add_row(
            *(record["variant"], str(record["image_size"]), f"{record['images_per_second']:,.0f}"),
            *(_percent(record["mfu"]), _percent(record["data_wait"])),
            "–" if record["memory_gib"] is None else f"{record['memory_gib']:.1f}",
            "–" if record["plain_images_per_second"] is None else f"{record['plain_images_per_second']:,.0f}",
            _percent(wanted) if name == "mfu" else f"{wanted:,.0f} images/s",
            said,
        )
    console.print(table)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"
