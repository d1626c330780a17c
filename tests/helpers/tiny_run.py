"""Settings of the smallest pretraining run, which tests vary, and its losses."""

import json
from pathlib import Path

from pixio_robot.images.augment import Photometric
from pixio_robot.pretraining.config import PretrainConfig

TINY = PretrainConfig(
    variant="pixio_tiny16",
    image_size=32,
    decoder_dim=32,
    decoder_depth=1,
    decoder_heads=2,
    mask_ratio=0.5,
    mask_block=1,
    batch_size=8,
    accumulation=2,
    steps=4,
    lr=1e-3,
    photometric=Photometric(),
)


def logged_losses(folder: Path) -> dict[int, float]:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    steps = [record["step"] for record in records if "step" in record]
    assert steps == list(range(1, len(steps) + 1))
    return {record["step"]: record["loss"] for record in records if "step" in record}
