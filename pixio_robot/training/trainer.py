"""Training of a policy by the engine."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from lerobot.policies import PreTrainedPolicy
from torch import Tensor

from pixio_robot.common.errors import UserError
from pixio_robot.common.precision import warn_of_slow_bfloat16
from pixio_robot.engine.average import WeightAverage
from pixio_robot.engine.checkpoints import Checkpoints
from pixio_robot.engine.loop import Plan, Precision, Training
from pixio_robot.engine.objective import Batch
from pixio_robot.engine.processes import Processes, join_processes
from pixio_robot.engine.run_log import RunLog
from pixio_robot.evaluation.checkpoints import MODEL_FOLDER
from pixio_robot.evaluation.open_loop import HeldOutRecord
from pixio_robot.evaluation.record import EvaluationRecord
from pixio_robot.training.config import TrainerConfig
from pixio_robot.training.data.batches import TrainingBatches
from pixio_robot.training.policy.objective import PolicyObjective, Processors, check_statistics_unchanged
from pixio_robot.training.policy.parameter_groups import parameter_groups, schedules
from pixio_robot.training.policy.selection import Selection


@dataclass(frozen=True)
class PolicyTraining:
    """What is trained, on what.

    Attributes:
        policy: Any LeRobot policy whose `forward` returns a loss; it is trained in place.
        processors: Pre- and post-processing pipelines; the first is applied to every batch.
        batches: Where batches come from, by step.
        information: What the policy was trained in, saved with each checkpoint.
        evaluate: Measures a checkpoint's policy, by rollouts or on held-out episodes, every `TrainerConfig.evaluate_every`
            steps on the main process.
    """

    policy: PreTrainedPolicy
    processors: Processors
    batches: TrainingBatches
    information: Mapping[str, Any] = field(default_factory=dict)
    evaluate: Callable[[Path], EvaluationRecord | HeldOutRecord] | None = None


def join_training_processes(precision: str = "float32") -> Processes:
    """Find the processes that train together, on GPUs where there are any.

    Args:
        precision: Of forward passes: `float32`, or `bfloat16` or `float16` with weights kept in float32.

    Raises:
        UserError: The precision needs a GPU that is not there; see `join_processes`.
    """
    processes = join_processes("cuda" if torch.cuda.is_available() else "cpu", "auto", precision)
    if processes.device.type == "cpu" and precision == "float16":
        raise UserError(
            "trainer.precision=float16 needs a GPU, and there is none: set trainer.precision=bfloat16 or float32."
        )
    if processes.device.type == "cpu" and precision == "bfloat16" and processes.main:
        warn_of_slow_bfloat16("trainer.precision")
    return processes


def train(
    setup: PolicyTraining,
    config: TrainerConfig,
    run_dir: Path,
    log: RunLog,
    *,
    seed: int = 0,
    processes: Processes | None = None,
    on_log: Callable[[int, float], None] = lambda step, loss: None,
) -> Path:
    """Train a policy, resuming from the run folder's newest checkpoint if there is one.

    Of several processes each takes its part of every batch, so that the steps are those of one process but for what is
    drawn at random within them (dropout, noise of diffusion). `pixio_bc` normalises over the part of a process.

    Args:
        setup: What is trained, on what.
        config: How long and how fast.
        run_dir: Receives `checkpoints/`, from the main process.
        log: Receives a line every `log_every` steps.
        seed: Decides what is drawn at random within steps.
        processes: Who takes part; by default those that this process was launched with.
        on_log: Called with the finished steps and the latest mean loss.

    Returns:
        The final checkpoint's `pretrained_model` folder.

    Raises:
        UserError: Loss, gradients or weights stopped being numbers (the last good checkpoint stays), or the checkpoint is of
            another policy or other demonstrations.
        StoppedError: A process was asked to stop; the step is finished and saved.
    """
    processes = processes or join_training_processes(config.precision)
    objective = PolicyObjective(
        setup.policy, setup.processors, setup.information, config.encoder_frozen_steps, processes
    )
    groups = parameter_groups(setup.policy, config)
    factors, peaks = schedules(groups, config), [group["lr"] for group in groups]
    checkpoints = Checkpoints(
        run_dir / "checkpoints", processes, config.keep_checkpoints, config.keep_checkpoints_every
    )
    newest = checkpoints.newest()
    if newest is not None and (newest / MODEL_FOLDER).is_dir():
        check_statistics_unchanged(newest, setup.processors)
    selection = Selection(setup.evaluate, config.evaluate_every, config.steps, checkpoints, log)
    Training(
        objective,
        torch.optim.AdamW(groups, fused=True),
        Plan(
            steps=config.steps,
            learning_rates=lambda step: [peak * factor(step) for peak, factor in zip(peaks, factors, strict=True)],
            batch_size=config.batch_size,
            precision=cast(Precision, config.precision),
            gradient_clip=config.gradient_clip,
            seed=seed,
            log_every=config.log_every,
            checkpoint_every=config.checkpoint_every,
            # Those of an encoder that is frozen at first, or has a head that is not used.
            weights_rest=objective.encoder is not None and not objective.encoder.frozen,
        ),
        processes,
        checkpoints,
        log,
        average=WeightAverage(objective.module, config.average_decay),
        console=log.console,
        on_log=on_log,
        evaluation_due=selection.due,
        evaluate=selection.consider,
    ).run(lambda first, _: _from_step(setup.batches, first))
    return checkpoints.path(config.steps) / MODEL_FOLDER


def _from_step(batches: TrainingBatches, first: int) -> Generator[Batch[dict[str, Tensor]]]:
    step = first
    while True:
        windows = batches.batch(step)
        yield Batch(step, windows, batches.names(windows))
        step += 1
