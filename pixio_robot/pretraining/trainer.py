"""Pretraining and distillation of encoders by the engine, with pictures at every checkpoint."""

import dataclasses
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from rich.console import Console
from torch import Tensor
from torch.distributed.tensor import DTensor

from pixio_robot.common.errors import UserError
from pixio_robot.common.precision import warn_of_slow_bfloat16
from pixio_robot.common.storage.files import write_json, write_text
from pixio_robot.common.versions import software_versions
from pixio_robot.engine.checkpoints import Checkpoints
from pixio_robot.engine.loop import Plan, Training
from pixio_robot.engine.optimizers import build_optimizer
from pixio_robot.engine.processes import Processes, join_processes
from pixio_robot.engine.run_folder import CONFIG_FILE
from pixio_robot.engine.run_log import RunLog
from pixio_robot.pretraining.batches import preview, training_batches
from pixio_robot.pretraining.config import PretrainConfig, TrainingConfig
from pixio_robot.pretraining.feature_pictures import feature_picture
from pixio_robot.pretraining.model.cost import flops_per_image, product_rate
from pixio_robot.pretraining.model.weights import ENCODER_FILE
from pixio_robot.pretraining.model_card import write_model_card
from pixio_robot.pretraining.objectives.base import ImageObjective
from pixio_robot.pretraining.objectives.reconstruction import Reconstruction
from pixio_robot.pretraining.pictures import save_loss_curve
from pixio_robot.pretraining.probing import EncoderProbes
from pixio_robot.pretraining.sources import ImageCache, ImageSource
from pixio_robot.reports.charts import save_picture
from pixio_robot.reports.page import FEATURES, RECONSTRUCTIONS, write_report

logger = logging.getLogger(__name__)

LOG_SECONDS = 5.0  # losses are read from the device this often, not at every step
PICTURE_IMAGES = 8


def pretrain(
    config: PretrainConfig,
    source: ImageSource,
    output_dir: Path,
    resume: bool = False,
    processes: Processes | None = None,
    on_log: Callable[[int, float], None] = lambda step, loss: None,
) -> Path:
    """Pretrain an encoder as a masked autoencoder; see `train`.

    Returns:
        The encoder's weights file, beside which `decoder.safetensors` lies.
    """
    return train(config, Reconstruction, source, output_dir, resume, processes, on_log=on_log)


def train[C: TrainingConfig](
    config: C,
    objective: Callable[[C], ImageObjective[C]],
    source: ImageSource,
    output_dir: Path,
    resume: bool = False,
    processes: Processes | None = None,
    console: Console | None = None,
    *,
    on_log: Callable[[int, float], None] = lambda step, loss: None,
) -> Path:
    """Minimise an objective over images.

    The folder receives `encoder.safetensors` (the result), `log.jsonl` (loss of every step), `curve.png`,
    `reconstructions/*.png`, `report.html`, `model_card.md` and `checkpoints/`, and `config.yaml` where there is none; of several
    processes the main one writes them. torch's global generator is seeded, since initial weights are drawn from it.

    Args:
        config: Settings.
        objective: Builds what is minimised; under FSDP it is called on the meta device.
        source: Images.
        output_dir: Where everything goes; of several processes, the main one's counts.
        resume: Continue from the newest checkpoint in `output_dir`; without one, start at the beginning.
        processes: Who takes part; found out by itself if None.
        console: Where progress is shown.
        on_log: Called with the finished steps and the latest loss, when losses are read.

    Returns:
        The encoder's weights file.

    Raises:
        UserError: The folder holds another run, the checkpoint belongs to another variant, settings or images,
            sizes do not fit each other, or loss, gradients or weights stop being numbers.
        StoppedError: A process was asked to stop; the step is finished and saved.
    """
    processes = processes or join_processes(config.device, config.distribution, config.precision)
    folder = processes.share(output_dir)
    if not resume and (folder / "log.jsonl").exists():
        raise UserError(f"{folder} already holds a run: resume it, or choose another folder.")
    torch.manual_seed(config.seed)
    with torch.device("meta" if processes.sharded else "cpu"):
        minimised = objective(config)
    if processes.sharded and config.optimizer == "muon":
        raise UserError("Muon needs whole matrices: with distribution=fsdp choose optimizer=adamw.")
    total = config.total_steps(source.images)
    if source.side < config.image_size and processes.main:
        logger.warning(
            "the frames have %d pixels a side and the crops %d: every crop is an enlargement; a larger images.side shows more",
            *(source.side, config.image_size),
        )
    if source.images is not None and source.images < config.batch_size and processes.main:
        logger.warning(
            "the %d images are fewer than the %d of a batch, which shows some of them more than once: a batch_size of at most %d "
            "does not",
            *(source.images, config.batch_size, source.images),
        )
    minimised.prepare(processes, source)
    probes = None
    if config.probe_every is not None and config.probe_images is not None:
        probes = EncoderProbes(Path(config.probe_images), config.probe_every, config.image_size)
    if config.precision == "bfloat16" and processes.device.type == "cpu" and processes.main:
        warn_of_slow_bfloat16(f"{minimised.phase}.precision")
    checkpoints = Checkpoints(folder / "checkpoints", processes, config.keep_checkpoints, config.keep_checkpoints_every)
    processes.wait()
    if processes.main and checkpoints.newest() is None:
        _start_afresh(config, source, folder, minimised.phase, processes, total)
    processes.wait()
    console = (console or Console()) if processes.main else Console(quiet=True)
    optimizer = build_optimizer(config.optimizer, minimised.module, config.weight_decay, config.precision)
    started = time.monotonic()
    with RunLog(folder, console, writes=processes.main) as log:
        pictures = _Pictures(minimised, source, folder, log, probes)
        Training(
            minimised,
            optimizer,
            Plan(
                steps=total,
                learning_rates=lambda step: [config.learning_rate(step, total)] * len(optimizer.param_groups),
                batch_size=config.batch_size,
                precision=config.precision,
                seed=config.seed,
                log_seconds=LOG_SECONDS,
                checkpoint_minutes=config.checkpoint_minutes,
                peak_per_second=_peak(config, processes.device),
            ),
            processes,
            checkpoints,
            log,
            console=console,
            on_checkpoint=pictures.draw,
            on_log=on_log,
            evaluation_due=lambda step: probes is not None and probes.is_due(step, total),
            evaluate=pictures.measure,
        ).run(
            lambda first, state: training_batches(
                *(config, source, first, total, processes.rank, processes.count, state),
                device=processes.device,
                then=minimised.drawn,
            )
        )
        minimised.write(folder, getattr(torch, config.result_dtype), main=processes.main)
        log.write(minimised.phase, event="finished", seconds=round(time.monotonic() - started, 1))
    if processes.main:
        write_model_card(folder, minimised.phase, minimised.loss_name)
    return folder / ENCODER_FILE


def _peak(config: TrainingConfig, device: torch.device) -> float | None:
    """Return how many images a second a GPU would train on at the rate of a large matrix product; None where not measured."""
    if device.type != "cuda" or not isinstance(config, PretrainConfig):
        return None
    return product_rate(device, getattr(torch, config.precision)) / flops_per_image(config)


def _start_afresh(
    config: TrainingConfig, source: ImageSource, folder: Path, phase: str, processes: Processes, total: int
) -> None:
    """Write what the run is, and forget the log of one that ended before its first checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.jsonl").unlink(missing_ok=True)
    if not (folder / CONFIG_FILE).exists():
        write_text(folder / CONFIG_FILE, yaml.safe_dump({phase: dataclasses.asdict(config)}, sort_keys=False))
    write_json(folder / "environment.json", software_versions())
    skipped = source.skipped if isinstance(source, ImageCache) else []
    RunLog(folder, Console(quiet=True)).write(
        phase,
        event="started",
        command=sys.argv,
        images=source.images,
        skipped_images=skipped,
        steps=total,
        processes=processes.count,
        distribution=processes.distribution,
    )


class _Pictures:
    """Curve, pictures of what the model does, what it knows, and the report and model card that show them."""

    def __init__(
        self, objective: ImageObjective, source: ImageSource, folder: Path, log: RunLog, probes: EncoderProbes | None
    ) -> None:
        self._objective, self._source, self._folder, self._log = objective, source, folder, log
        self._probes = probes
        self._shown_BHWC: Tensor | None = None

    def draw(self, step: int) -> None:
        """Draw everything after `step` steps, but for pictures of a sharded model, which would take all processes."""
        losses = [line["loss"] for line in self._log.entries(self._objective.phase) if "loss" in line]
        save_loss_curve(losses, self._folder / "curve.png", self._objective.loss_name)
        module, config = self._objective.module, self._objective.config
        write_model_card(self._folder, self._objective.phase, self._objective.loss_name)
        if any(isinstance(value, DTensor) for value in module.parameters()):
            return
        if self._shown_BHWC is None:
            self._shown_BHWC = preview(self._source, PICTURE_IMAGES, config.image_size)
        module.eval()
        with torch.compiler.set_stance("force_eager"):  # a picture is not worth compiling the blocks again for
            pictures = {
                RECONSTRUCTIONS: self._objective.picture(self._shown_BHWC, config.seed),
                FEATURES: feature_picture(self._objective.encoder, self._shown_BHWC),
            }
        module.train()
        for name, picture in pictures.items():
            if picture is not None:
                (self._folder / name).mkdir(exist_ok=True)
                save_picture(picture, self._folder / name / f"{step:07d}.png")
                self._log.picture(name, picture, step)
        write_report(self._folder)

    def measure(self, step: int) -> None:
        """Measure the encoder after `step` steps."""
        assert self._probes is not None
        self._log.write(self._objective.phase, step=step, **self._probes.measure(self._objective.encoder))
        write_report(self._folder)
