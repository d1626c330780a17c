"""The policy training loop."""

import math
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from lerobot.policies import PreTrainedPolicy
from lerobot.processor import PolicyProcessorPipeline
from torch.optim.lr_scheduler import LambdaLR

from pixio_robot.common.errors import UserError
from pixio_robot.engine.average import WeightAverage
from pixio_robot.engine.run_log import RunLog
from pixio_robot.engine.stopping import StoppedError, StopRequest
from pixio_robot.evaluation.record import EvaluationRecord
from pixio_robot.training.config import TrainerConfig
from pixio_robot.training.data.batches import TrainingBatches
from pixio_robot.training.policy.checkpoints import load_checkpoint, save_checkpoint
from pixio_robot.training.policy.parameter_groups import find_encoder, parameter_groups, schedules
from pixio_robot.training.policy.selection import Selection
from pixio_robot.training.processes import mean_over_processes, open_accelerator, own_part, seed_step


def train(
    policy: PreTrainedPolicy,
    processors: tuple[PolicyProcessorPipeline, PolicyProcessorPipeline],
    batches: TrainingBatches,
    config: TrainerConfig,
    run_dir: Path,
    log: RunLog,
    information: Mapping[str, Any],
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    *,
    evaluate: Callable[[Path], EvaluationRecord] | None = None,
    seed: int = 0,
    accelerator: Accelerator | None = None,
) -> Path:
    """Train a policy, resuming from the run folder's last checkpoint if there is one.

    Of several processes each takes its part of every batch; gradients are averaged, so that the steps are those of
    one process but for what is drawn at random within them (dropout, noise of diffusion). `pixio_bc` normalises over
    the part of a process.

    Args:
        policy: Any LeRobot policy whose `forward` returns a loss; it is trained in place.
        processors: Pre- and post-processing pipelines; the first is applied to every batch.
        batches: Where batches come from, by step.
        config: How long and how fast.
        run_dir: Receives `checkpoints/`, from the main process.
        log: Receives a line every `log_every` steps.
        information: What the policy was trained in, saved with each checkpoint.
        on_step: Called with the finished steps and the latest mean loss.
        evaluate: Rolls out a checkpoint's policy, every `config.evaluate_every` steps on the main process.
        seed: Decides what is drawn at random within steps.
        accelerator: Processes and precision; by default those that this process was launched with.

    Returns:
        The final checkpoint's `pretrained_model` folder.

    Raises:
        UserError: The loss is no longer finite (the last good checkpoint stays); see `load_checkpoint`, `own_part`.
        StoppedError: SIGINT or SIGTERM came during a step, which is finished and saved.
    """
    encoder = find_encoder(policy)
    trains_encoder = encoder is not None and not encoder.frozen
    accelerator = accelerator or open_accelerator(config.precision, weights_rest=trains_encoder)
    groups = parameter_groups(policy, config)
    optimizer = torch.optim.AdamW(groups, fused=True)
    scheduler = LambdaLR(optimizer, schedules(groups, config))
    average = WeightAverage(policy, config.average_decay)
    scaler = accelerator.scaler
    start = load_checkpoint(run_dir, policy, average, optimizer, scheduler, processors, scaler)
    log.begin_curves("training", start)
    selection = Selection(evaluate, config.evaluate_every, config.steps, log) if evaluate is not None else None
    checkpoint = run_dir / "checkpoints" / "last" / "pretrained_model"
    if selection is not None and accelerator.is_main_process and selection.due(start):  # stopped while evaluating
        selection.consider(start, checkpoint.resolve())
    # What is saved is `policy`, `optimizer`; what is called are their wrapped selves.
    model, stepper = accelerator.prepare(policy, optimizer)
    model.train()
    on_step(start, math.nan)
    losses: list[torch.Tensor] = []
    clock = time.perf_counter()
    asked: signal.Signals | None = None
    for step in range(start + 1, config.steps + 1):
        with StopRequest() as request:
            if encoder is not None:
                encoder.freeze_temporarily(step <= config.encoder_frozen_steps)
            seed_step(seed, step, accelerator)
            batch, weight = own_part(batches.batch(step - 1), accelerator)
            loss = model(processors[0](batch))[0] * weight
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(policy.parameters(), config.gradient_clip)
            stepper.step()
            stepper.zero_grad()
            scheduler.step()
            average.update()
            losses.append(loss.detach())
        asked = asked or request.signal
        logs = step % config.log_every == 0 or step == config.steps
        stops = _stop_together(asked is not None, logs, accelerator)
        if logs or stops:
            mean_loss = mean_over_processes(torch.stack(losses).mean(), accelerator)
            if not math.isfinite(mean_loss):
                raise UserError(
                    f"The loss became {mean_loss} between steps {step - len(losses) + 1} and {step}; the last "
                    f"checkpoint in {run_dir / 'checkpoints'} is good. Lower trainer.learning_rate, or look for "
                    f"non-finite values in the demonstrations."
                )
            seconds, clock = time.perf_counter() - clock, time.perf_counter()
            log.write(
                "training",
                step=step,
                loss=mean_loss,
                lr=float(scheduler.get_last_lr()[0]),
                seconds_per_step=seconds / len(losses),
            )
            losses.clear()
            on_step(step, mean_loss)
        if accelerator.is_main_process:
            evaluates = selection is not None and selection.due(step)
            if evaluates or stops or step % config.checkpoint_every == 0 or step == config.steps:
                checkpoint = save_checkpoint(
                    run_dir, step, config.steps, policy, average, optimizer, scheduler, processors, information, scaler
                )
            if selection is not None and evaluates and not stops:
                before = time.perf_counter()
                selection.consider(step, checkpoint)
                clock += time.perf_counter() - before
        if stops:
            accelerator.wait_for_everyone()  # until it is saved
            raise StoppedError(asked or signal.SIGTERM)
    return checkpoint


def _stop_together(asked: bool, meet: bool, accelerator: Accelerator) -> bool:
    """Whether any process was asked to stop; several find out where they meet to log anyway."""
    if accelerator.num_processes == 1:
        return asked
    return meet and mean_over_processes(torch.tensor(float(asked), device=accelerator.device), accelerator) > 0
