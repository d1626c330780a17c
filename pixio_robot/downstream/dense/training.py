"""The training of one head by the engine, tested every few epochs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn

from pixio_robot.downstream.dense.batches import DenseBatches
from pixio_robot.downstream.dense.data.sets import Kind
from pixio_robot.downstream.dense.metrics import Score
from pixio_robot.downstream.dense.objective import DenseObjective
from pixio_robot.downstream.dense.testing import DenseTest
from pixio_robot.engine.checkpoints import Checkpoints
from pixio_robot.engine.loop import Plan, Precision, Training
from pixio_robot.engine.processes import Processes
from pixio_robot.engine.run_log import RunLog

_BETAS = (0.9, 0.999)
_WARM_UP = 0.1  # of all steps, for depth
_POWER = 0.9


@dataclass(frozen=True, kw_only=True)
class HeadTraining:
    """How a head is trained.

    Attributes:
        kind: What it predicts.
        depth_range: Metres that are valid.
        batches: What it is trained on.
        tests: What it is tested by.
        score: What a test gives.
        epochs: Passes over the images.
        evaluate_every: Epochs between tests; the last one is always followed by one.
        learning_rate: The highest.
        weight_decay: On all parameters.
        precision: Of forward passes.
        identity: Plain values that a resumed training must share.
    """

    kind: Kind
    depth_range: tuple[float, float]
    batches: DenseBatches
    tests: Mapping[str, DenseTest]
    score: Score
    epochs: int
    evaluate_every: int
    learning_rate: float
    weight_decay: float
    precision: Precision
    identity: Mapping[str, Any]

    @property
    def steps(self) -> int:
        """Optimiser steps of all epochs."""
        return self.epochs * self.batches.steps_per_epoch

    def rate(self, step: int) -> float:
        """Return the learning rate at a step: depth warms up linearly, both fall to zero by a power of what is left."""
        warm_up = round(_WARM_UP * self.steps) if self.kind == "depth" else 0
        if step < warm_up:
            return self.learning_rate * (step + 1) / warm_up
        return self.learning_rate * (1 - (step - warm_up) / max(self.steps - warm_up, 1)) ** _POWER


@dataclass(frozen=True)
class HeadResult:
    """What became of a training.

    Attributes:
        epochs: By epoch with a test, metrics by test.
        images: By test, what each image added in the last one.
    """

    epochs: dict[int, dict[str, dict[str, float]]]
    images: dict[str, np.ndarray]


def train_head(
    training: HeadTraining, head: nn.Module, seed: int, folder: Path, device: torch.device, console: Console
) -> HeadResult:
    """Train a head in place, from the folder's newest checkpoint if there is one, and test it.

    Args:
        training: How.
        head: With its initial weights.
        seed: Of what is drawn within steps.
        folder: Receives `log.jsonl` and `checkpoints/`.
        device: Where it is trained.
        console: Where progress is shown.

    Raises:
        UserError: Loss, gradients or weights stopped being numbers, or an image cannot be read.
        StoppedError: The process was asked to stop; the step is finished and saved.
    """
    objective = DenseObjective(head, training.kind, training.depth_range, device, dict(training.identity))
    trained = [parameter for parameter in head.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0, betas=_BETAS, weight_decay=training.weight_decay, fused=True)
    processes = Processes(0, 1, "none", device)
    per_epoch, images = training.batches.steps_per_epoch, dict[str, np.ndarray]()

    def test_due(step: int) -> bool:
        epoch, rest = divmod(step, per_epoch)
        return rest == 0 and (epoch % training.evaluate_every == 0 or epoch == training.epochs)

    with RunLog(folder, Console(quiet=True)) as log:
        Training(
            objective,
            optimizer,
            Plan(
                steps=training.steps,
                learning_rates=lambda step: [training.rate(step)],
                batch_size=training.batches.batch_size,
                precision=training.precision,
                seed=seed,
                log_every=10,
                checkpoint_minutes=5,
            ),
            processes,
            Checkpoints(folder / "checkpoints", processes),
            log,
            console=console,
            evaluation_due=test_due,
            evaluate=_tester(training, objective, log, images),
        ).run(lambda first, _: training.batches.from_step(first, training.steps))
        lines = [line for line in log.entries(objective.phase) if line.get("event") == "tested"]
    return HeadResult({line["at_step"] // per_epoch: line["metrics"] for line in lines}, images)


def _tester(
    training: HeadTraining, objective: DenseObjective, log: RunLog, images: dict[str, np.ndarray]
) -> Callable[[int], None]:
    def test(step: int) -> None:
        objective.module.eval()
        metrics = {}
        for name, part in training.tests.items():
            images[name] = part.score(objective.module, training.score)
            metrics[name] = training.score.metrics(images[name])
        objective.module.train()
        log.write(objective.phase, event="tested", at_step=step, metrics=metrics)

    return test
