"""The pretraining loop: one optimiser step after another, resumable at any of them.

Shape letters: B images, C channels, H and W pixels.
"""

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from timm.layers.attention import Attention
from timm.optim._param_groups import param_groups_weight_decay
from torch import Tensor

from pixio_robot.errors import UserError
from pixio_robot.pretraining.augment import change_photometrically, draw_changes, normalise
from pixio_robot.pretraining.batches import STEP, Batch, generator_for, preview, training_batches
from pixio_robot.pretraining.checkpoints import latest_checkpoint, restore_checkpoint, save_checkpoint
from pixio_robot.pretraining.config import PretrainConfig
from pixio_robot.pretraining.mae import PixioMAE
from pixio_robot.pretraining.masking import block_mask
from pixio_robot.pretraining.pictures import reconstruct, save_loss_curve, save_picture
from pixio_robot.pretraining.run_log import PretrainingBar, RunLog
from pixio_robot.pretraining.sources import ImageSource
from pixio_robot.pretraining.weights import create_encoder, save_mae

LOG_SECONDS = 5.0  # losses are read from the device this often, not at every step
PICTURE_IMAGES = 8


def pretrain(config: PretrainConfig, source: ImageSource, output_dir: Path, resume: bool = False) -> Path:
    """Pretrain an encoder as a masked autoencoder.

    The folder receives `encoder.safetensors` and `decoder.safetensors` (the result), `config.yaml`, `log.jsonl`
    (loss of every step), `curve.png`, `reconstructions/*.png` and `checkpoints/`. torch's global generator is
    seeded, since stochastic depth draws from it.

    Args:
        config: Settings.
        source: Where images come from.
        output_dir: Where everything goes.
        resume: Continue from the latest checkpoint in `output_dir`; without one, start at the beginning.

    Returns:
        The encoder's weights file.

    Raises:
        UserError: The folder holds another run, the checkpoint belongs to another variant, settings or images,
            sizes do not fit each other, or the loss stops being a number.
    """
    torch.manual_seed(config.seed)
    trainer = _Trainer(config, source, output_dir)
    if not resume and trainer.log.file.exists():
        raise UserError(f"{output_dir} already holds a run: resume it, or choose another folder.")
    checkpoint = latest_checkpoint(trainer.checkpoints)
    if checkpoint:
        first = restore_checkpoint(checkpoint, trainer.mae, trainer.optimizer, trainer.identity)
        trainer.log.rewind(first)
    else:
        first = 0
        trainer.start_afresh()
    trainer.train(first)
    save_mae(trainer.mae, config.variant, output_dir, getattr(torch, config.result_dtype))
    return output_dir / "encoder.safetensors"


class _Trainer:
    """Model, optimiser and run folder of one call of `pretrain`."""

    def __init__(self, config: PretrainConfig, source: ImageSource, folder: Path) -> None:
        self.config = config
        self.source = source
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self.log = RunLog(folder / "log.jsonl")
        self.total = config.total_steps(source.images)
        self.identity: dict[str, Any] = config.identity() | {"images": source.fingerprint}
        encoder = create_encoder(config.variant, config.image_size, config.drop_path)
        self.mae = PixioMAE(
            encoder,
            config.decoder_dim,
            config.decoder_depth,
            config.decoder_heads,
            config.mask_ratio,
            config.mask_block,
        ).to(config.device)
        if config.device == "cpu":
            # On CPUs the backward pass of torch's fused attention takes 43 % of a bfloat16 step (torch 2.11);
            # plain products are 1.8 times as fast over the whole step, and as fast as fused in float32.
            for module in self.mae.modules():
                if isinstance(module, Attention):
                    module.fused_attn = False
        # A mask that does not fit the images must end here, before anything is written.
        block_mask(1, encoder.patch_embed.grid_size, config.mask_ratio, config.mask_block)
        groups = param_groups_weight_decay(self.mae, config.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), fused=True)

    def start_afresh(self) -> None:
        """Write what the run is, and forget the log of one that ended before its first checkpoint."""
        (self.folder / "reconstructions").mkdir(parents=True, exist_ok=True)
        self.log.file.unlink(missing_ok=True)
        OmegaConf.save(OmegaConf.create(dataclasses.asdict(self.config)), self.folder / "config.yaml")
        self.log.write(
            {
                "event": "started",
                "command": sys.argv,
                "images": self.source.images,
                "skipped_images": self.source.skipped,
                "steps": self.total,
            }
        )

    def train(self, first: int) -> None:
        """Do steps first…total-1, with a checkpoint every few minutes and at the end."""
        started = saved = time.monotonic()
        self.mae.train()
        with PretrainingBar(first, self.total) as bar:
            for step, batch_BCHW in training_batches(self.config, self.source, first, self.total):
                learning_rate = self.config.learning_rate(step, self.total)
                self.log.add(self.step(batch_BCHW, step, learning_rate), learning_rate)
                due = time.monotonic() - saved > 60 * self.config.checkpoint_minutes
                if due or self.log.seconds_since_flush > LOG_SECONDS:
                    self.flush(bar)
                if due:
                    self.checkpoint(step + 1)
                    saved = time.monotonic()
            if first < self.total:
                self.flush(bar)
                self.checkpoint(self.total)
        self.log.write({"event": "finished", "seconds": round(time.monotonic() - started, 1)})

    def step(self, batch_BCHW: Tensor, step: int, learning_rate: float) -> Tensor:
        """Do one optimiser step on a uint8 batch and return its mean loss, still on the device."""
        config = self.config
        generator = generator_for(config.seed, STEP, step)
        torch.manual_seed(generator.initial_seed())
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        losses = []
        for part_BCHW in batch_BCHW.to(config.device, non_blocking=True).chunk(config.accumulation):
            images_BCHW = part_BCHW.contiguous().float() / 255
            if config.photometric:
                images_BCHW = change_photometrically(
                    images_BCHW, draw_changes(len(images_BCHW), config.photometric, generator)
                )
            with torch.autocast(images_BCHW.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
                loss = self.mae(normalise(images_BCHW), generator).loss / config.accumulation
            loss.backward()
            losses.append(loss.detach())
        self.optimizer.step()
        self.optimizer.zero_grad()
        return torch.stack(losses).sum()

    def flush(self, bar: PretrainingBar) -> None:
        """Bring log and bar up to date."""
        try:
            rate = self.log.flush(self.config.batch_size)
        except UserError as error:
            raise UserError(f"{error}; {self._kept()}") from error
        bar.update(self.log.losses, rate)

    def checkpoint(self, step: int) -> None:
        """Save the state after `step` steps and draw pictures of it."""
        # A finite loss can have had gradients that were not: such weights must not replace a good checkpoint.
        if not torch.stack([parameter.isfinite().all() for parameter in self.mae.parameters()]).all():
            raise UserError(f"The weights stopped being numbers at step {step}; {self._kept()}")
        save_checkpoint(self.checkpoints, step, self.mae, self.optimizer, self.identity)
        save_loss_curve(self.log.losses, self.folder / "curve.png")
        self.mae.eval()
        shown = torch.linspace(0, len(self.source) - 1, PICTURE_IMAGES).long().tolist()
        frames_BHWC = self._resized(self.source.read(shown))
        picture = reconstruct(self.mae, frames_BHWC, self.config.seed)
        save_picture(picture, self.folder / "reconstructions" / f"{step:07d}.png")
        self.mae.train()

    def _resized(self, frames_BHWC: Tensor) -> Tensor:
        images = frames_BHWC.permute(0, 3, 1, 2)
        size = (self.config.image_size, self.config.image_size)
        resized = torch.nn.functional.interpolate(images, size, mode="bilinear", antialias=True)
        return resized.permute(0, 2, 3, 1)

    def _kept(self) -> str:
        kept = latest_checkpoint(self.checkpoints)
        good = f"the last good checkpoint is {kept}" if kept else "there is no checkpoint yet"
        return f"{good}: lower the learning rate and start a new run."
