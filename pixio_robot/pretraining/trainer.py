"""The pretraining loop: one optimiser step after another, resumable at any of them.

Every step seeds its own random numbers from (seed, stream, step), and every epoch its own order of images, so
that a checkpoint needs no generator state and a resumed run repeats the uninterrupted one.

Shape letters: B images, C channels, H and W pixels.
"""

import dataclasses
import json
import math
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from omegaconf import OmegaConf
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from timm.optim import param_groups_weight_decay
from torch import Tensor

from pixio_robot.errors import UserError
from pixio_robot.pretraining.augment import (
    Photometric,
    Range,
    change_photometrically,
    crop_and_resize,
    normalise,
    random_crops,
)
from pixio_robot.pretraining.checkpoints import latest_checkpoint, restore_checkpoint, save_checkpoint
from pixio_robot.pretraining.mae import PixioMAE
from pixio_robot.pretraining.masking import block_mask
from pixio_robot.pretraining.pictures import reconstruct, save_loss_curve, save_picture
from pixio_robot.pretraining.sources import ImageCache
from pixio_robot.pretraining.weights import create_encoder, save_mae

LOG_SECONDS = 5.0  # losses are read from the device this often, not at every step
PICTURE_IMAGES = 8
_ORDER, _CROP, _MASK = range(3)  # streams of random numbers


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
    """Settings of a run; exactly one of `steps` and `epochs`, and of `lr` and `base_lr`, is given.

    Args:
        variant: timm name of the encoder.
        image_size: Side of the crops in pixels.
        decoder_dim: Decoder width.
        decoder_depth: Decoder blocks.
        decoder_heads: Decoder attention heads.
        mask_ratio: Fraction of blocks masked.
        mask_block: Side of a mask block in patches.
        batch_size: Images per optimiser step.
        accumulation: Parts a batch is split into; on a CPU parts of some 32 images are fastest (cache).
        steps: Optimiser steps.
        epochs: Passes over the images.
        lr: Peak learning rate.
        base_lr: Peak learning rate per 256 images of the batch.
        warmup: Fraction of the steps over which the rate rises linearly; it then falls as a cosine to zero.
        weight_decay: AdamW's, on matrices and embeddings, not on vectors.
        drop_path: Stochastic depth of the encoder's last block.
        crop_scale: Area of crops as a fraction of the image.
        crop_ratio: Width / height of crops.
        photometric: Light and colour changes, or None (the paper's recipe).
        precision: Type of the matrix products; float32 is faster on CPUs at small sizes.
        device: torch device.
        seed: Seed of weights, order, crops, masks and stochastic depth.
        checkpoint_minutes: Time between checkpoints, each with a picture and the curve.
        result_dtype: Type of the weights in the result files; checkpoints are float32.
    """

    variant: str
    image_size: int = 128
    decoder_dim: int = 128
    decoder_depth: int = 8
    decoder_heads: int = 4
    mask_ratio: float = 0.75
    mask_block: int = 2
    batch_size: int = 256
    accumulation: int = 8
    steps: int | None = None
    epochs: float | None = None
    lr: float | None = None
    base_lr: float | None = None
    warmup: float = 0.05
    weight_decay: float = 0.05
    drop_path: float = 0.0
    crop_scale: Range = (0.2, 1.0)
    crop_ratio: Range = (3 / 4, 4 / 3)
    photometric: Photometric | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    device: str = "cpu"
    seed: int = 0
    checkpoint_minutes: float = 5.0
    result_dtype: Literal["float32", "float16"] = "float32"

    def __post_init__(self) -> None:
        """Refuse what cannot run.

        Raises:
            UserError: Settings contradict each other.
        """
        for one, other in (("steps", "epochs"), ("lr", "base_lr")):
            if (getattr(self, one) is None) == (getattr(self, other) is None):
                raise UserError(f"Give exactly one of {one} and {other}, the other as null.")
        if self.batch_size % self.accumulation:
            raise UserError(f"A batch of {self.batch_size} cannot be split into {self.accumulation} equal parts.")

    def total_steps(self, images: int) -> int:
        """Optimiser steps of the run over that many images."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, round(self.epochs * images / self.batch_size))

    def learning_rate(self, step: int, total: int) -> float:
        """Linear warm-up, then a cosine down to zero."""
        peak = self.lr if self.lr is not None else (self.base_lr or 0.0) * self.batch_size / 256
        warmup = round(self.warmup * total)
        if step < warmup:
            return peak * (step + 1) / warmup
        return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


class Run:
    """Paths and log of one run folder."""

    def __init__(self, folder: Path) -> None:
        """Create the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "reconstructions").mkdir(exist_ok=True)
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self.log_file = folder / "log.jsonl"

    def log(self, *records: dict[str, Any]) -> None:
        """Append one JSON object a line."""
        with self.log_file.open("a") as file:
            file.writelines(json.dumps({"phase": "pretraining", **record}) + "\n" for record in records)

    def losses_until(self, step: int) -> list[float]:
        """Read back the losses of the first steps, and drop from the log what an interrupted run did after them."""
        records = [json.loads(line) for line in self.log_file.read_text().splitlines() if line.endswith("}")]
        records = [record for record in records if record.get("step", 0) <= step]
        unfinished = self.log_file.with_suffix(".unfinished")
        unfinished.write_text("".join(json.dumps(record) + "\n" for record in records))
        unfinished.replace(self.log_file)
        return [record["loss"] for record in records if "loss" in record]


def pretrain(config: PretrainConfig, source: ImageCache, output_dir: Path, resume: bool = False) -> Path:
    """Pretrain an encoder as a masked autoencoder.

    The folder receives `encoder.safetensors` and `decoder.safetensors` (the result), `config.yaml`, `log.jsonl`
    (loss of every step), `curve.png`, `reconstructions/*.png` and, until the end, `checkpoints/`. Seeds torch's
    global generator, which stochastic depth draws from.

    Args:
        config: Settings.
        source: Decoded images.
        output_dir: Where everything goes.
        resume: Continue from the latest checkpoint in `output_dir`; without one, start at the beginning.

    Returns:
        The encoder's weights file.

    Raises:
        UserError: The folder holds another run, the checkpoint belongs to another variant, settings or images,
            sizes do not fit each other, or the loss stops being a number.
    """
    run = Run(output_dir)
    checkpoint = latest_checkpoint(run.checkpoints)
    if not resume and run.log_file.exists():
        raise UserError(f"{output_dir} already holds a run: resume it, or choose another folder.")
    total = config.total_steps(len(source))
    torch.manual_seed(config.seed)
    encoder = create_encoder(config.variant, config.image_size, config.drop_path)
    mae = PixioMAE(
        encoder,
        config.decoder_dim,
        config.decoder_depth,
        config.decoder_heads,
        config.mask_ratio,
        config.mask_block,
    ).to(config.device)
    block_mask(1, encoder.patch_embed.grid_size, config.mask_ratio, config.mask_block)  # sizes that do not fit end here
    groups = param_groups_weight_decay(mae, config.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), fused=True)
    identity = _identity(config, source)
    losses: list[float] = []
    if checkpoint:
        first = restore_checkpoint(checkpoint, mae, optimizer, identity)
        losses = run.losses_until(first)
    else:
        first = 0
        run.log_file.unlink(missing_ok=True)
        OmegaConf.save(OmegaConf.create(dataclasses.asdict(config)), output_dir / "config.yaml")
        run.log(
            {
                "event": "started",
                "command": sys.argv,
                "images": len(source),
                "skipped_images": source.skipped,
                "steps": total,
            }
        )
    _train(config, source, run, mae, optimizer, identity, first, total, losses)
    save_mae(mae, config.variant, output_dir, getattr(torch, config.result_dtype))
    return output_dir / "encoder.safetensors"


def _identity(config: PretrainConfig, source: ImageCache) -> dict[str, Any]:
    """What a resumed run must share with the interrupted one, so that its losses are the same."""
    free = ("device", "checkpoint_minutes", "result_dtype")
    settings = {key: value for key, value in dataclasses.asdict(config).items() if key not in free}
    return settings | {"images": source.fingerprint}


def _train(
    config: PretrainConfig,
    source: ImageCache,
    run: Run,
    mae: PixioMAE,
    optimizer: torch.optim.Optimizer,
    identity: dict[str, Any],
    first: int,
    total: int,
    losses: list[float],
) -> None:
    started = flushed = saved = time.monotonic()
    pending: list[tuple[Tensor, float]] = []

    def flush(step: int) -> None:
        """Read pending losses from the device, log them, and stop at one that is not a number."""
        nonlocal flushed
        values = torch.stack([loss for loss, _ in pending]).tolist() if pending else []
        rate = len(pending) * config.batch_size / (time.monotonic() - flushed)
        for offset, (value, (_, lr)) in enumerate(zip(values, pending, strict=True), step - len(pending)):
            if not math.isfinite(value):
                raise UserError(_not_a_number(offset + 1, run))
            losses.append(value)
            run.log({"step": offset + 1, "loss": value, "lr": lr, "images_per_second": round(rate, 1)})
        pending.clear()
        flushed = time.monotonic()
        recent = sum(losses[-50:]) / max(1, len(losses[-50:]))
        progress.update(task, completed=step, loss=f"{recent:.4f}", rate=f"{rate:.0f}")

    def checkpoint(step: int) -> None:
        nonlocal saved
        flush(step)
        # A finite loss can still have had gradients that were not: never replace a good checkpoint by such weights.
        if not torch.stack([p.isfinite().all() for p in mae.parameters()]).all():
            raise UserError(_not_a_number(step, run))
        save_checkpoint(run.checkpoints, step, mae, optimizer, identity)
        _show(config, source, run, mae, step, losses)
        saved = time.monotonic()

    columns = (
        TextColumn("pretraining"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}  {task.fields[rate]} images/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task("", total=total, completed=first, loss="–", rate="–")
        step = first
        try:
            for step, batch_BCHW in _batches(config, source, first, total):
                lr = config.learning_rate(step, total)
                pending.append((_step(config, mae, optimizer, batch_BCHW, step, lr), lr))
                now = time.monotonic()
                if now - saved > 60 * config.checkpoint_minutes:
                    checkpoint(step + 1)
                elif now - flushed > LOG_SECONDS:
                    flush(step + 1)
        except KeyboardInterrupt:
            done = first + len(losses) - (len(losses) - len(losses))  # replaced below
            raise
        checkpoint(total)
    run.log({"event": "finished", "seconds": round(time.monotonic() - started, 1)})


def _not_a_number(step: int, run: Run) -> str:
    kept = latest_checkpoint(run.checkpoints)
    return (
        f"The loss stopped being a number at step {step}: lower the learning rate and start a new run"
        + (f"; the last good checkpoint is {kept}." if kept else ".")
    )
