"""The training loop of pretraining and distillation: one optimiser step after another, resumable at any of them.

Shape letters: B images, C channels, H and W pixels, N patches, L residual branches.
"""

import dataclasses
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel

from pixio_robot.common.errors import UserError
from pixio_robot.common.files import write_json
from pixio_robot.common.precision import warn_of_slow_bfloat16
from pixio_robot.common.versions import software_versions
from pixio_robot.engine.board import Board
from pixio_robot.engine.optimizers import build_optimizer
from pixio_robot.engine.stopping import StoppedError, StopRequest
from pixio_robot.images.augment import ColourChanges, change_photometrically, draw_changes
from pixio_robot.images.surfaces import SurfaceChanges, change_surfaces, draw_surfaces
from pixio_robot.pretraining.batches import STEP, Batch, generator_for, own_part, preview, training_batches
from pixio_robot.pretraining.checkpoints import latest_checkpoint, restore_checkpoint, save_checkpoint
from pixio_robot.pretraining.config import PretrainConfig, TrainingConfig
from pixio_robot.pretraining.distributed import (
    Processes,
    checkpoint_activations,
    join_processes,
    materialise,
    own_shard,
    shard,
)
from pixio_robot.pretraining.feature_pictures import feature_picture
from pixio_robot.pretraining.model.execution import compile_blocks, use_plain_attention
from pixio_robot.pretraining.model.masking import block_mask
from pixio_robot.pretraining.model.stochastic_depth import StochasticDepth
from pixio_robot.pretraining.model.weights import ENCODER_FILE
from pixio_robot.pretraining.objectives.reconstruction import Objective, Reconstruction
from pixio_robot.pretraining.pictures import save_loss_curve
from pixio_robot.pretraining.run_log import LossIsNoNumberError, RunLog, StepBar
from pixio_robot.pretraining.sources import ImageCache, ImageSource
from pixio_robot.reports.figures import save_picture
from pixio_robot.reports.page import FEATURES, RECONSTRUCTIONS, write_report

LOG_SECONDS = 5.0  # losses are read from the device this often, not at every step
PICTURE_IMAGES = 8
NAMED_IMAGES = 8  # of a batch whose loss is no number, in the message; the log has all


def pretrain(
    config: PretrainConfig,
    source: ImageSource,
    output_dir: Path,
    resume: bool = False,
    processes: Processes | None = None,
) -> Path:
    """Pretrain an encoder as a masked autoencoder; see `train`.

    Returns:
        The encoder's weights file, beside which `decoder.safetensors` lies.
    """
    return train(config, Reconstruction, source, output_dir, resume, processes)


def train[C: TrainingConfig](
    config: C,
    objective: Callable[[C], Objective],
    source: ImageSource,
    output_dir: Path,
    resume: bool = False,
    processes: Processes | None = None,
) -> Path:
    """Minimise an objective over images.

    The folder receives `encoder.safetensors` (the result), `config.yaml`, `log.jsonl` (loss of every step),
    `curve.png`, `reconstructions/*.png` and `checkpoints/`; of several processes the main one writes them. torch's
    global generator is seeded, since initial weights are drawn from it.

    Args:
        config: Settings.
        objective: Builds what is minimised; under FSDP it is called on the meta device.
        source: Images.
        output_dir: Where everything goes; of several processes, the main one's counts.
        resume: Continue from the latest checkpoint in `output_dir`; without one, start at the beginning.
        processes: Who takes part; found out by itself if None.

    Returns:
        The encoder's weights file.

    Raises:
        UserError: The folder holds another run, the checkpoint belongs to another variant, settings or images,
            sizes do not fit each other, or the loss stops being a number.
        StoppedError: SIGINT or SIGTERM came; the step is finished and saved.
    """
    if processes is None:
        with join_processes(config) as processes:
            return train(config, objective, source, output_dir, resume, processes)
    output_dir = processes.share(output_dir)
    trainer = _Trainer(config, objective, source, output_dir, processes)
    if not resume and trainer.log.file.exists():
        raise UserError(f"{output_dir} already holds a run: resume it, or choose another folder.")
    first, images_state = trainer.resume_or_start()
    if processes.main:
        trainer.log.board = Board(output_dir / "tensorboard", first)
    trainer.train(first, images_state)
    trainer.objective.save(output_dir, getattr(torch, config.result_dtype), processes.main)
    return output_dir / ENCODER_FILE


class _Draws(NamedTuple):
    """Everything random about the images of a step but their crops: masks, colours, stochastic depth."""

    mask_BN: Tensor
    changes: ColourChanges | None
    surfaces: SurfaceChanges | None
    depth_LB: Tensor

    def part(self, rows: slice) -> "_Draws":
        changes = self.changes and ColourChanges(*(change[rows] for change in self.changes))
        surfaces = self.surfaces and SurfaceChanges(*(change[rows] for change in self.surfaces))
        return _Draws(self.mask_BN[rows], changes, surfaces, self.depth_LB[:, rows])


class _Trainer[C: TrainingConfig]:
    """Model, optimiser and run folder of one call of `train`."""

    def __init__(
        self,
        config: C,
        objective: Callable[[C], Objective],
        source: ImageSource,
        folder: Path,
        processes: Processes,
    ) -> None:
        self.config = config
        self.source = source
        self.folder = folder
        self.processes = processes
        self.checkpoints = folder / "checkpoints"
        self.shown_BHWC: Tensor | None = None
        self.skipped: list[tuple[int, tuple[str, ...]]] = []
        self.total = config.total_steps(source.images)
        self.own = own_part(config.batch_size, processes.rank, processes.count)
        torch.manual_seed(config.seed)
        with torch.device("meta" if processes.sharded else "cpu"):
            self.objective = objective(config)
        self.log = RunLog(folder / "log.jsonl", self.objective.phase, processes.main)
        self.identity: dict[str, Any] = config.identity() | self.objective.identity() | {"images": source.fingerprint}
        self.grid: tuple[int, int] = self.objective.encoder.patch_embed.grid_size
        # A mask that does not fit the images must end here, before anything is written.
        block_mask(1, self.grid, config.mask_ratio, config.mask_block)
        self.module = self._prepared()
        if processes.sharded and config.optimizer == "muon":
            raise UserError("Muon needs whole matrices: with distribution=fsdp choose optimizer=adamw.")
        if config.precision == "bfloat16" and processes.device.type == "cpu" and processes.main:
            warn_of_slow_bfloat16(f"{self.objective.phase}.precision")
        self.optimizer = build_optimizer(config.optimizer, self.objective.module, config.weight_decay, config.precision)
        device_type = processes.device.type
        self.scaler = GradScaler(device_type, enabled=config.precision == "float16")

    def _prepared(self) -> torch.nn.Module:
        """Place the module on its device or devices and return what the forward pass goes through."""
        module, device = self.objective.module, self.processes.device
        self.depth = StochasticDepth(module)
        if device.type == "cpu":
            use_plain_attention(module)
        if self.config.activation_checkpointing:
            checkpoint_activations(module)
        if self.config.compile_blocks:
            compile_blocks(module, device)
        if self.processes.sharded:
            shard(module, device)
            materialise(module, device, self.config.seed)
        else:
            module.to(device)
        self.objective.to(device)
        return self.processes.wrap(module)

    def resume_or_start(self) -> tuple[int, dict[str, Any]]:
        """Restore the latest checkpoint, or begin; return the first step to do and the state of the images."""
        checkpoint = latest_checkpoint(self.checkpoints)
        self.processes.wait()
        if checkpoint is None:
            if self.processes.main:
                self.start_afresh()
            self.processes.wait()
            return 0, {}
        first, images_state, scale = restore_checkpoint(
            checkpoint, self.objective.module, self.optimizer, self.identity, self.processes
        )
        self.scaler.load_state_dict(scale)
        self.log.rewind(first)
        return first, images_state

    def start_afresh(self) -> None:
        """Write what the run is, and forget the log of one that ended before its first checkpoint."""
        for pictures in (RECONSTRUCTIONS, FEATURES):
            (self.folder / pictures).mkdir(parents=True, exist_ok=True)
        self.log.file.unlink(missing_ok=True)
        OmegaConf.save(OmegaConf.create(dataclasses.asdict(self.config)), self.folder / "config.yaml")
        write_json(self.folder / "environment.json", software_versions())
        self.log.write(
            {
                "event": "started",
                "command": sys.argv,
                "images": self.source.images,
                "skipped_images": self.source.skipped if isinstance(self.source, ImageCache) else [],
                "steps": self.total,
                "processes": self.processes.count,
                "distribution": self.processes.distribution,
            }
        )

    def train(self, first: int, images_state: dict[str, Any]) -> None:
        """Do steps first…total-1, with a checkpoint every few minutes, where a signal asks to stop, and at the end."""
        started = saved = time.monotonic()
        due = False
        self.objective.module.train()
        batches = training_batches(
            self.config, self.source, first, self.total, self.processes.rank, self.processes.count, images_state
        )
        with StepBar(self.objective.phase, first, self.total, self.processes.main) as bar, StopRequest() as request:
            for batch in batches:
                images_state = batch.state
                learning_rate = self.config.learning_rate(batch.step, self.total)
                loss = self.processes.mean(self.step(batch, learning_rate))
                self.log.add(loss, learning_rate, batch.names)
                if batch.skipped:
                    self.skipped.append((batch.step + 1, batch.skipped))
                stop = request.signal is not None and batch.step + 1 < self.total
                due = stop or time.monotonic() - saved > 60 * self.config.checkpoint_minutes
                flush = due or self.log.seconds_since_flush > LOG_SECONDS
                stop, due, flush = self.processes.decide(stop, due, flush)
                if flush:
                    self.flush(bar)
                if due:
                    self.checkpoint(batch.step + 1, images_state)
                    saved = time.monotonic()
                if stop:
                    raise StoppedError(request.signal or signal.SIGTERM)
            if first < self.total and not due:
                self.flush(bar)
                self.checkpoint(self.total, images_state)
        self.log.write({"event": "finished", "seconds": round(time.monotonic() - started, 1)})

    def step(self, batch: Batch, learning_rate: float) -> Tensor:
        """Do one optimiser step and return the mean loss of this process's images, still on the device."""
        config, device = self.config, self.processes.device
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        draws = self._draw(batch.step).part(self.own)
        images_BCHW = batch.images_BCHW.to(device, non_blocking=True)
        size = len(images_BCHW) // config.accumulation
        losses = []
        for part in range(config.accumulation):
            rows = slice(part * size, (part + 1) * size)
            if isinstance(self.module, DistributedDataParallel):
                # Gradients are averaged once, with the last part; the forward pass already has to know.
                self.module.require_backward_grad_sync = part == config.accumulation - 1
            loss = self._loss(images_BCHW[rows], draws.part(rows)) / config.accumulation
            self.scaler.scale(loss).backward()
            losses.append(loss.detach())
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return torch.stack(losses).sum()

    def _draw(self, step: int) -> _Draws:
        """Draw for the global batch, so that losses do not depend on how it is shared out and split."""
        config, generator = self.config, generator_for(self.config.seed, STEP, step)
        mask_BN = block_mask(config.batch_size, self.grid, config.mask_ratio, config.mask_block, generator)
        changes = draw_changes(config.batch_size, config.photometric, generator) if config.photometric else None
        depth_LB = self.depth.draw(config.batch_size, generator)
        size = (config.image_size, config.image_size)
        surfaces = draw_surfaces(config.batch_size, size, config.disguise, generator) if config.disguise else None
        return _Draws(mask_BN, changes, surfaces, depth_LB)

    def _loss(self, uint8_BCHW: Tensor, draws: _Draws) -> Tensor:
        precision = getattr(torch, self.config.precision)
        images_BCHW = uint8_BCHW.contiguous().float() / 255
        seen_BCHW = change_surfaces(images_BCHW, draws.surfaces) if draws.surfaces else images_BCHW
        if draws.changes:
            seen_BCHW = change_photometrically(seen_BCHW, draws.changes)
        asked_BCHW = images_BCHW if draws.surfaces else seen_BCHW
        self.depth.set_factors(draws.depth_LB.to(images_BCHW.device, non_blocking=True))
        with torch.autocast(images_BCHW.device.type, precision, enabled=precision != torch.float32):
            return self.objective.loss(self.module, seen_BCHW, asked_BCHW, draws.mask_BN)

    def flush(self, bar: StepBar) -> None:
        """Bring log and bar up to date."""
        for skipped in self.processes.gather(self.skipped):
            self.log.write(*({"event": "skipped", "step": step, "images": names} for step, names in skipped))
        self.skipped.clear()
        try:
            rate = self.log.flush(self.config.batch_size)
        except LossIsNoNumberError as error:
            images = [name for names in self.processes.gather(error.images) for name in names]
            self.log.write({"event": "stopped", "reason": str(error), "step": error.step, "images": images})
            more = f" and {len(images) - NAMED_IMAGES} more in log.jsonl" if len(images) > NAMED_IMAGES else ""
            named = ", ".join(images[:NAMED_IMAGES])
            raise UserError(f"{error} (images {named}{more}); {self._kept()}") from error
        bar.update(self.log.losses, rate)

    def checkpoint(self, step: int, images_state: dict[str, Any]) -> None:
        """Save the state after `step` steps and draw pictures of it."""
        # A finite loss can have had gradients that were not: such weights must not replace a good checkpoint.
        finite = torch.stack([own_shard(value).isfinite().all() for value in self.objective.module.parameters()])
        if self.processes.mean(finite.all().float()) < 1:
            raise UserError(f"The weights stopped being numbers at step {step}; {self._kept()}")
        save_checkpoint(
            self.checkpoints,
            step,
            self.objective.module,
            self.optimizer,
            self.identity,
            images_state,
            self.scaler.state_dict(),
            self.processes,
            None if self.processes.sharded else lambda folder: self.objective.save(folder, torch.float32, True),
        )
        if self.processes.main:
            save_loss_curve(self.log.losses, self.folder / "curve.png", self.objective.loss_name)
            if not self.processes.sharded:  # a picture of a sharded model would take all processes
                self.draw(step)

    def draw(self, step: int) -> None:
        """Save pictures of what the model does after `step` steps, and the report that shows them."""
        if self.shown_BHWC is None:
            self.shown_BHWC = preview(self.source, PICTURE_IMAGES, self.config.image_size)
        self.objective.module.eval()
        with torch.compiler.set_stance("force_eager"):  # a picture is not worth compiling the blocks again for
            pictures = {
                RECONSTRUCTIONS: self.objective.picture(self.shown_BHWC, self.config.seed),
                FEATURES: feature_picture(self.objective.encoder, self.shown_BHWC),
            }
        self.objective.module.train()
        for name, picture in pictures.items():
            if picture is not None:
                save_picture(picture, self.folder / name / f"{step:07d}.png")
                if self.log.board:
                    self.log.board.picture(name, picture, step)
        write_report(self.folder)

    def _kept(self) -> str:
        kept = latest_checkpoint(self.checkpoints)
        good = f"the last good checkpoint is {kept}" if kept else "there is no checkpoint yet"
        return f"{good}: lower the learning rate and start a new run."
