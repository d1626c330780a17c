"""The speed ladder: changes that leave the loss curve as it is, applied one after another and measured together.

All rungs train the same model from the same initial weights on the same images, crops, colours and masks. Rounds are
interleaved, so that whatever else the machine does slows all rungs alike.

Shape letters: B images, C channels, H and W pixels.
"""

import gc
import resource
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.progress import Progress
from timm.optim._param_groups import param_groups_weight_decay
from torch import Tensor, nn

from pixio_robot.images.augment import ColourChanges, change_photometrically, draw_changes
from pixio_robot.images.preprocessing import normalise
from pixio_robot.pretraining.batches import STEP, generator_for, training_batches
from pixio_robot.pretraining.config import Precision, PretrainConfig
from pixio_robot.pretraining.model.execution import compile_blocks, use_plain_attention
from pixio_robot.pretraining.model.mae import MAEOutput
from pixio_robot.pretraining.model.masking import block_mask
from pixio_robot.pretraining.objectives.reconstruction import Reconstruction
from pixio_robot.pretraining.sources import ImageCache, folder_images
from pretraining_speed.reference import PlainImages, PlainMAE, plain_loader

SIDE = 160  # of the images, as `FolderImages` keeps them


@dataclass(frozen=True)
class Rung:
    """What is done at one step of the ladder.

    Args:
        name: What this rung adds to the one before.
        tolerance: How far, relatively, its losses may lie from the reference's.
        masked_only: Head and loss on masked patches only.
        asynchronous: Losses stay on the device until the end of the round.
        fused_optimizer: One kernel updates all parameters.
        cached_images: uint8 images decoded once; colours and normalisation batched on the device.
        linear_patches: Visible patches alone are embedded, by a linear layer; mask tokens are not put in order.
        small_parts: Batches in parts that stay near the CPU's caches, attention as plain matrix products.
        precision: Type of the matrix products.
        compiled: Compiled blocks.
    """

    name: str
    tolerance: float = 1e-5
    masked_only: bool = False
    asynchronous: bool = False
    fused_optimizer: bool = False
    cached_images: bool = False
    linear_patches: bool = False
    small_parts: bool = False
    precision: Precision = "float32"
    compiled: bool = False


def ladder(device: str, low_precision: Precision | None = "bfloat16") -> list[Rung]:
    """Return the rungs for a device, each with everything of those before, and last the reference in low precision.

    Args:
        device: Where to train, `cpu` or `cuda`.
        low_precision: Of the two last rungs; None leaves them out.
    """
    reference = Rung("plain trainer")
    rungs = [reference]
    additions = [
        {"name": "head and loss on masked patches only", "masked_only": True},
        {"name": "no synchronisation in steps", "asynchronous": True},
        {"name": "fused AdamW", "fused_optimizer": True},
        # PIL and torch round a resized pixel differently in rare cases, by one of 255 levels.
        {"name": "decoded-once uint8 images, batched colours", "cached_images": True, "tolerance": 1e-3},
        {"name": "visible patches embedded by a linear layer", "linear_patches": True},
        *([{"name": "small parts, plain attention", "small_parts": True}] if device == "cpu" else []),
        {"name": "compiled blocks", "compiled": True},
    ]
    for addition in additions:
        rungs.append(replace(rungs[-1], **addition))
    if low_precision:  # eight bits of mantissa: not exact, and stated as a rung of its own
        low = {"precision": low_precision, "tolerance": 2e-2}
        rungs.append(replace(rungs[-1], name=low_precision, **low))
        rungs.append(replace(reference, name=f"plain trainer in {low_precision}", **low))
    return rungs


@dataclass
class Measurement:
    """What one rung did, round by round."""

    rung: Rung
    losses: list[float] = field(default_factory=list)
    wall_seconds: list[float] = field(default_factory=list)  # per image
    cpu_seconds: list[float] = field(default_factory=list)  # per image, of this process and its workers
    compiled: bool = False

    @property
    def images_per_second(self) -> float:
        """Median over rounds."""
        return 1 / statistics.median(self.wall_seconds)

    @property
    def cpu_milliseconds(self) -> float:
        """Processor time of an image, median over rounds."""
        return 1e3 * statistics.median(self.cpu_seconds)


def write_images(folder: Path, count: int) -> list[Path]:
    """Write smooth random pictures, JPEG at quality 90, SIDE pixels wide and high, and return their paths in order."""
    random = np.random.default_rng(0)
    files = []
    for index in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (10, 10, 3), dtype=np.uint8))
        files.append(folder / f"{index:06d}.jpg")
        coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(files[-1], quality=90)
    return files


class _Trainer:
    """Model, optimiser and data of one rung."""

    def __init__(self, config: PretrainConfig, rung: Rung, steps: int, files: list[Path], cache: ImageCache) -> None:
        self.config = replace(
            config, precision=rung.precision, accumulation=config.accumulation if rung.small_parts else 1
        )
        self.rung = rung
        self.steps = steps
        self.cache = cache
        self.draws = [self._draw(step) for step in range(steps)]
        self.files = files
        torch.manual_seed(config.seed)
        objective = Reconstruction(self.config)
        self.mae = objective.module.to(config.device).train()
        self.module: nn.Module = self.mae if rung.linear_patches else PlainMAE(self.mae, rung.masked_only)
        if rung.small_parts:
            use_plain_attention(self.mae)
        self.compiled = rung.compiled and compile_blocks(self.mae, torch.device(config.device))
        groups = param_groups_weight_decay(self.mae, config.weight_decay)
        fused, for_loop = rung.fused_optimizer, None if rung.fused_optimizer else False
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), fused=fused, foreach=for_loop)

    def _draw(self, step: int) -> tuple[Tensor, ColourChanges | None]:
        config, generator = self.config, generator_for(self.config.seed, STEP, step)
        grid = config.image_size // 16
        mask_BN = block_mask(config.batch_size, (grid, grid), config.mask_ratio, config.mask_block, generator)
        return mask_BN, draw_changes(config.batch_size, config.photometric, generator) if config.photometric else None

    def batches(self, first: int, last: int, workers: int) -> Iterator[Tensor]:
        """Yield uint8 or normalised float batches."""
        if self.rung.cached_images:
            for batch in training_batches(self.config, self.cache, first, last):
                yield batch.data
        else:
            images = PlainImages(self.config, self.files, SIDE, [changes for _, changes in self.draws])
            images.rows = images.rows[first * self.config.batch_size : last * self.config.batch_size]
            yield from plain_loader(images, self.config.batch_size, workers)

    def warm_up(self) -> None:
        """Compile and allocate, without changing a weight."""
        config = self.config
        images_BCHW = torch.zeros(config.batch_size, 3, config.image_size, config.image_size)
        self._losses(images_BCHW.to(torch.uint8) if self.rung.cached_images else images_BCHW, 0)
        self.optimizer.zero_grad()

    def step(self, images_BCHW: Tensor, step: int) -> Tensor | float:
        """Do one optimiser step and return its loss, on the device or, with a wait for it, as a number."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate(step, self.steps)
        loss = self._losses(images_BCHW, step)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss if self.rung.asynchronous else loss.item()

    def _losses(self, images_BCHW: Tensor, step: int) -> Tensor:
        config = self.config
        mask_BN, changes = self.draws[step]
        images_BCHW = images_BCHW.to(config.device, non_blocking=True)
        size = config.batch_size // config.accumulation
        losses = []
        for start in range(0, config.batch_size, size):
            rows = slice(start, start + size)
            part = images_BCHW[rows]
            if self.rung.cached_images:
                part = part.contiguous().float() / 255
                if changes:
                    part = change_photometrically(part, ColourChanges(*(change[rows] for change in changes)))
                part = normalise(part)
            precision = getattr(torch, config.precision)
            with torch.autocast(part.device.type, precision, enabled=config.precision != "float32"):
                output: MAEOutput = self.module(part, mask_BN=mask_BN[rows].to(config.device))
            loss = output.loss / config.accumulation
            loss.backward()
            losses.append(loss.detach())
        return torch.stack(losses).sum()


def measure(
    config: PretrainConfig, rungs: list[Rung], steps: int, rounds: int, images: int, workers: int, progress: Progress
) -> list[Measurement]:
    """Train every rung for rounds × steps steps, data loading included.

    A round is timed from its first batch to its last step: while it runs, as many batches are prepared as are used,
    but one. Initial weights and draws are the same on all rungs.

    Args:
        config: Settings; `accumulation` holds from the rung of small parts on, `precision` on none.
        rungs: See `ladder`.
        steps: Steps of a round.
        rounds: Rounds, all rungs one after another in each.
        images: Number of synthetic images on disk.
        workers: Worker processes of the plain trainer's data loader.
        progress: Where to show how far it is.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "images").mkdir()
        files = write_images(folder / "images", images)
        cache = folder_images(folder / "images", folder / "cache", SIDE)
        total = steps * rounds
        bar = progress.add_task("warming up", total=len(rungs), note="")
        trainers = []
        for rung in rungs:
            progress.update(bar, note=rung.name)
            trainers.append(_Trainer(config, rung, total, files, cache))
            trainers[-1].warm_up()
            progress.advance(bar)
        measurements = [
            Measurement(rung, compiled=trainer.compiled) for rung, trainer in zip(rungs, trainers, strict=True)
        ]
        bar = progress.add_task("measuring", total=rounds * len(rungs), note="")
        for first in range(0, total, steps):
            for trainer, measurement in zip(trainers, measurements, strict=True):
                progress.update(bar, note=measurement.rung.name)
                _one_round(trainer, measurement, first, first + steps, workers)
                progress.advance(bar)
    return measurements


def _one_round(trainer: _Trainer, measurement: Measurement, first: int, last: int, workers: int) -> None:
    gc.collect()
    images = (last - first) * trainer.config.batch_size
    cpu = _cpu_seconds()
    batches = trainer.batches(first, last, workers)
    batch = next(batches)
    started = time.perf_counter()
    losses = [trainer.step(batch, first)]
    losses += [trainer.step(batch, step) for step, batch in enumerate(batches, first + 1)]
    measurement.losses += [float(loss) for loss in losses]  # waits for the device
    measurement.wall_seconds.append((time.perf_counter() - started) / images)
    measurement.cpu_seconds.append((_cpu_seconds() - cpu) / images)


def _cpu_seconds() -> float:
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def loss_deviation(losses: Iterable[float], reference: Iterable[float]) -> float:
    """Largest relative distance of a loss curve from the reference's."""
    return max(abs(loss - other) / other for loss, other in zip(losses, reference, strict=True))
