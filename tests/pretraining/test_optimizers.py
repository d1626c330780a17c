"""Muon takes the matrices of the blocks, AdamW the rest, under one learning rate."""

import torch
from timm.models.vision_transformer import Block
from torch import nn

from pixio_robot.pretraining.optimizers import build_optimizer


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.blocks = nn.Sequential(Block(8, 2))
        self.head = nn.Linear(8, 6)


def updates(optimizer_name: str, learning_rate: float) -> dict[str, torch.Tensor]:
    """Return what one step without weight decay changes, by parameter name."""
    torch.manual_seed(0)
    module = Small()
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    optimizer = build_optimizer(optimizer_name, module, weight_decay=0.0)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    module.head(module.blocks(module.embed(torch.randn(4, 3, 6)))).pow(2).mean().backward()
    optimizer.step()
    return {name: value.detach() - before[name] for name, value in module.named_parameters()}


def test_muon_orthogonalises_block_matrices_and_leaves_the_rest_to_adam() -> None:
    muon, adam = updates("muon", 0.1), updates("adamw", 0.1)
    for name, change in muon.items():
        if name.startswith("blocks.") and change.ndim == 2:
            # Newton-Schulz iterations bring singular values near 1 (all but the smallest), times 0.2 sqrt(longer side)
            # and the rate (arXiv 2502.16982, equation 4); their spread is part of the method.
            singular = torch.linalg.svdvals(change) / (0.1 * 0.2 * max(change.shape) ** 0.5)
            assert singular.median() > 0.5, name
            assert singular.max() < 1.4, name
        else:
            assert torch.equal(change, adam[name]), name


def test_learning_rate_reaches_every_parameter() -> None:
    assert all((change == 0).all() for change in updates("muon", 0.0).values())
    assert all((change != 0).any() for change in updates("muon", 0.1).values())
