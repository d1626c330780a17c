"""The policy training loop."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lerobot.policies import PreTrainedPolicy
from lerobot.processor import PolicyProcessorPipeline
from torch.optim.lr_scheduler import LambdaLR

from pixio_robot.errors import UserError
from pixio_robot.training.average import WeightAverage
from pixio_robot.training.batches import TrainingBatches
from pixio_robot.training.checkpoints import load_checkpoint, save_checkpoint
from pixio_robot.training.config import TrainerConfig
from pixio_robot.training.parameter_groups import find_encoder, parameter_groups, schedules
from pixio_robot.training.run_log import RunLog


def train(
    policy: PreTrainedPolicy,
    processors: tuple[PolicyProcessorPipeline, PolicyProcessorPipeline],
    batches: TrainingBatches,
    config: TrainerConfig,
    run_dir: Path,
    log: RunLog,
    information: Mapping[str, Any],
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> Path:
    """Train a policy, resuming from the run folder's last checkpoint if there is one.

    Args:
        policy: Any LeRobot policy whose `forward` returns a loss; it is trained in place.
        processors: Pre- and post-processing pipelines; the first is applied to every batch.
        batches: Where batches come from, by step.
        config: How long and how fast.
        run_dir: Receives `checkpoints/`.
        log: Receives a line every `log_every` steps.
        information: What the policy was trained in, saved with each checkpoint.
        on_step: Called with the finished steps and the latest mean loss.

    Returns:
        The final checkpoint's `pretrained_model` folder.

    Raises:
        UserError: The loss is no longer finite; the last good checkpoint stays.
    """
    groups = parameter_groups(policy, config)
    optimizer = torch.optim.AdamW(groups, fused=True)
    scheduler = LambdaLR(optimizer, schedules(groups, config))
    encoder = find_encoder(policy)
    average = WeightAverage(policy, config.average_decay)
    start = load_checkpoint(run_dir, policy, average, optimizer, scheduler)
    log.discard_after("training", start)
    on_step(start, math.nan)
    policy.train()
    losses: list[torch.Tensor] = []
    checkpoint = run_dir / "checkpoints" / "last" / "pretrained_model"
    clock = time.perf_counter()
    for step in range(start + 1, config.steps + 1):
        if encoder is not None:
            encoder.hold(step <= config.encoder_frozen_steps)
        loss, _ = policy(processors[0](batches.batch(step - 1)))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), config.gradient_clip)
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        average.update()
        losses.append(loss.detach())
        if step % config.log_every == 0 or step == config.steps:
            mean_loss = torch.stack(losses).mean().item()
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
        if step % config.checkpoint_every == 0 or step == config.steps:
            checkpoint = save_checkpoint(
                run_dir, step, config.steps, policy, average, optimizer, scheduler, processors, information
            )
    return checkpoint
