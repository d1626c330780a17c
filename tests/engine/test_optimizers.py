"""Muon takes the matrices of the blocks, AdamW the rest, under one learning rate."""

import pytest
import torch
from timm.models.vision_transformer import Block
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from pixio_robot.engine.optimizers import build_optimizer
from pixio_robot.pretraining.config import Precision


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.blocks = nn.Sequential(Block(8, 2))
        self.head = nn.Linear(8, 6)


def updates(optimizer_name: str, learning_rate: float, precision: Precision = "float32") -> dict[str, torch.Tensor]:
    """Return what one step without weight decay changes, by parameter name."""
    torch.manual_seed(0)
    module = Small()
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    optimizer = build_optimizer(optimizer_name, module, weight_decay=0.0, precision=precision)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    module.head(module.blocks(module.embed(torch.randn(4, 3, 6)))).pow(2).mean().backward()
    optimizer.step()
    return {name: value.detach() - before[name] for name, value in module.named_parameters()}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_muon_orthogonalises_block_matrices_and_leaves_the_rest_to_adam(precision: Precision) -> None:
    muon, adam = updates("muon", 0.1, precision), updates("adamw", 0.1)
    for name, change in muon.items():
        if name.startswith("blocks.") and change.ndim == 2:
            # Newton-Schulz iterations bring singular values near 1 (all but the smallest), times 0.2 sqrt(longer side)
            # and the rate (arXiv 2502.16982, equation 4); their spread is part of the method.
            singular = torch.linalg.svdvals(change) / (0.1 * 0.2 * max(change.shape) ** 0.5)
            assert singular.median() > 0.5, name
            assert singular.max() < 1.4, name
        else:
            # To rounding: how it falls depends on a processor, and on what else a list of parameters holds.
            torch.testing.assert_close(change, adam[name], rtol=1e-5, atol=0, msg=name)


def test_learning_rate_reaches_every_parameter() -> None:
    assert all((change == 0).all() for change in updates("muon", 0.0).values())
    assert all((change != 0).any() for change in updates("muon", 0.1).values())


class _Bfloat16Matrices(TorchDispatchMode):
    """Finds tensors in bfloat16, which processors without instructions for it multiply fifty times as slowly."""

    found = False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.found |= isinstance(result, torch.Tensor) and result.dtype == torch.bfloat16
        return result


def test_in_float32_muon_multiplies_nothing_in_bfloat16() -> None:
    found = {}
    for precision in ("float32", "bfloat16"):
        with _Bfloat16Matrices() as products:
            updates("muon", 0.1, precision)
        found[precision] = products.found
    assert found == {"float32": False, "bfloat16": True}


def test_in_float32_muon_is_torchs_own_but_for_the_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over several steps, with weight decay and momentum, against torch.optim.Muon and torch.optim.AdamW."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)  # how torch's Muon comes to bfloat16
    ends = []
    for ours in (True, False):
        torch.manual_seed(0)
        module = Small()
        if ours:
            optimizers = [build_optimizer("muon", module, 0.5)]
        else:
            matrices = [value for value in module.blocks.parameters() if value.ndim == 2]
            vectors = [value for value in module.parameters() if value.ndim == 1]
            outside = [module.embed.weight, module.head.weight]
            groups = [{"params": vectors, "weight_decay": 0.0}, {"params": outside, "weight_decay": 0.5}]
            optimizers = [
                torch.optim.Muon(matrices, lr=0.0, weight_decay=0.5, adjust_lr_fn="match_rms_adamw"),
                torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95)),
            ]
        for _ in range(4):
            module.head(module.blocks(module.embed(torch.randn(4, 3, 6)))).pow(2).mean().backward()
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = 0.02
                optimizer.step()
                optimizer.zero_grad()
        ends.append(module.state_dict())
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)
