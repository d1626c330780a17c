"""Stochastic depth whose draws do not depend on how a batch is split (arXiv 1603.09382; 0.4 in arXiv 2512.15715).

timm's DropPath draws from the global generator inside the forward pass, so that the draws change with the number of
processes and of accumulated parts. Here they are drawn once for the global batch and each part gets its own.

Shape letters: B images, L residual branches.
"""

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn


class DrawnDropPath(nn.Module):
    """Multiplies a residual branch by factors set beforehand, one per image; passes it on outside of training."""

    def __init__(self, probability: float) -> None:
        """Drop an image's branch with this probability."""
        super().__init__()
        self.probability = probability
        self.factor_B11: Tensor | None = None

    def forward(self, x_BND: Tensor) -> Tensor:
        """Drop or scale the branch of each image."""
        if not self.training:
            return x_BND
        assert self.factor_B11 is not None, "set_factors comes before the forward pass"
        return x_BND * self.factor_B11.to(x_BND.dtype)


class StochasticDepth:
    """All droppable branches of a module."""

    def __init__(self, module: nn.Module) -> None:
        """Replace every timm DropPath of the module."""
        self._branches: list[DrawnDropPath] = []
        for parent in list(module.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, DropPath) and child.drop_prob:
                    branch = DrawnDropPath(child.drop_prob)
                    setattr(parent, name, branch)
                    self._branches.append(branch)

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """Draw factors (L, B) with mean 1: 0 for a dropped branch, else 1 / (1 - its probability)."""
        keep_L1 = 1 - torch.tensor([branch.probability for branch in self._branches])[:, None]
        return (torch.rand(len(self._branches), batch, generator=generator) < keep_L1) / keep_L1

    def set_factors(self, factors_BL: Tensor) -> None:
        """Use these factors, on the module's device, in the next forward passes."""
        for branch, factor_B in zip(self._branches, factors_BL.unbind(1), strict=True):
            branch.factor_B11 = factor_B[:, None, None]
