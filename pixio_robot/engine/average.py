"""Exponential moving average of the trainable weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """Average of a model's trainable parameters over training steps.

    The decay grows from 0.1 as (1 + n) / (10 + n) over the updates n, so that the random start is forgotten
    quickly, up to its final value.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start the average at the model's present weights."""
        self.decay = decay
        self.updates = 0
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._average = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the model's present weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        get_ema_multi_avg_fn(decay)(list(self._average.values()), list(self._parameters.values()), self.updates)
        self.updates += 1

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The averaged weights by name, to be saved, and to be filled in by a resumed run."""
        return dict(self._average)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averaged weights into the model for a while."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            parameter.data, self._average[name] = self._average[name], parameter.data
