"""What a training minimises: the one thing in which policies, autoencoders, distillation and heads differ."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Batch[D]:
    """What one process trains on in one step.

    Attributes:
        step: Number of the step, from 0.
        data: This process's part of the global batch.
        names: Says which samples they are, for people.
        state: Plain values (JSON) from which this process's samples go on after this batch, by share of the work; see
            `merge_states`.
        skipped: Names of samples that could not be read while this batch was made.
    """

    step: int
    data: D
    names: list[str]
    state: dict[str, Any] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()


class Objective[D, P](Protocol):
    """A loss, the module it trains, and what is left of it in the end.

    The loss is a sum of terms, each a mean over something that batches hold more or less of: windows, actions within
    their episodes, masked patches. Means of processes and parts are put together by how much each is a mean over, so that
    a step is the same however its batch is shared out.
    """

    phase: str
    """Name in log and progress bar."""
    unit: str
    """What a batch consists of, in the plural, for rates."""

    @property
    def module(self) -> nn.Module:
        """Everything that is trained."""
        ...

    def begin_step(self, step: int) -> None:
        """Prepare for step `step`, from 1."""
        ...

    def parts(self, batch: Batch[D]) -> Sequence[P]:
        """Return the parts of a batch, on the device, that one forward and backward pass each take."""
        ...

    def weights(self, part: P) -> Sequence[float]:
        """Return over how much each term of a part's loss is a mean."""
        ...

    def loss(self, module: nn.Module, part: P) -> Tensor:
        """Return the terms of a part's mean loss (K,).

        Args:
            module: `self.module` or a wrapper of it.
            part: One of `parts`.
        """
        ...

    def identity(self) -> dict[str, Any]:
        """Return plain values that a resumed run must share with the interrupted one."""
        ...

    def save(self, folder: Path) -> None:
        """Write loadable results of the present weights into a checkpoint's folder; the main process alone calls this."""
        ...


def trainable_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return, by name, what training changes: trainable parameters, and the statistics of the layers that have any."""
    tensors = {name: value.detach() for name, value in module.named_parameters() if value.requires_grad}
    for prefix, layer in module.named_modules():
        if any(parameter.requires_grad for parameter in layer.parameters(recurse=False)):
            name = f"{prefix}." if prefix else ""
            tensors |= {f"{name}{key}": value for key, value in layer.named_buffers(recurse=False)}
    return tensors


def all_finite(tensors: Sequence[Tensor]) -> Tensor:
    """Whether every number is finite: a bool tensor, still on the device."""
    return torch.stack([tensor.isfinite().all() for tensor in tensors]).all()


def seed_step(seed: int, step: int, rank: int) -> None:
    """Let all that torch draws in a step (dropout, noise of diffusion) follow from run, step and process alone.

    A resumed run then draws the same, whatever happened in between.
    """
    state = np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0] >> np.uint64(1)))
