"""Optimisers of encoders: AdamW, the paper's, and Muon for short runs on small machines."""

import functools
from typing import Literal
from unittest import mock

import timm.optim.muon
import torch
from timm.optim._param_groups import param_groups_weight_decay
from timm.optim.muon import Muon
from torch import Tensor, nn

BETAS = (0.9, 0.95)  # arXiv 2512.15715, appendix


class Float32Muon(Muon):
    """timm's Muon that orthogonalises in float32, for processors without instructions for bfloat16.

    timm has no option for it. Such a processor spends most of a step on it otherwise: an EPYC of the third generation, for
    the matrices of `pixio_tiny` and its decoder, 6.7 s against 0.3 s (one thread).
    """

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Do one step."""
        in_float32 = functools.partial(timm.optim.muon.zeropower_via_newtonschulz, dtype=torch.float32)
        with mock.patch.object(timm.optim.muon, "zeropower_via_newtonschulz", in_float32):
            super().step(closure)


def build_optimizer(
    name: Literal["adamw", "muon"], module: nn.Module, weight_decay: float, precision: str = "float32"
) -> torch.optim.Optimizer:
    """Build an optimiser with a learning rate of 0.

    Muon orthogonalises the momentum of the matrices inside transformer blocks (K. Jordan et al. 2024, "Muon: an
    optimizer for hidden layers in neural networks"), AdamW takes everything else; Muon's updates are scaled to the size
    of AdamW's (J. Liu et al., arXiv 2502.16982), so that one learning rate and weight decay mean the same for both.

    Args:
        name: Which.
        module: Its trainable parameters are shared out; Muon takes the matrices in `blocks`.
        weight_decay: On matrices and embeddings, not on vectors.
        precision: Of the forward pass: with float32, Muon's own matrix products are in float32, too, otherwise in
            bfloat16.
    """
    groups = param_groups_weight_decay(module, weight_decay)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, betas=BETAS, fused=True)
    matrices = [
        parameter
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and parameter.ndim == 2 and ".blocks." in f".{name}"
    ]
    taken = {id(parameter) for parameter in matrices}
    others = [group | {"params": [value for value in group["params"] if id(value) not in taken]} for group in groups]
    muon = Float32Muon if precision == "float32" else Muon
    return muon(
        [
            {"params": matrices, "weight_decay": weight_decay, "use_muon": True, "nesterov": True},
            *(group | {"use_fallback": True, "nesterov": False, "eps": 1e-8} for group in others),
        ],
        lr=0.0,
        ns_coefficients="original",
        betas=BETAS,
    )


def optimizer_tensors(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """Return what an optimiser keeps of each trainable parameter, by name, made where no step has been done.

    AdamW and Muon do the same step from zeros as from nothing.
    """
    for_muon = {id(value) for group in optimizer.param_groups if group.get("use_muon") for value in group["params"]}
    tensors: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        state = optimizer.state[parameter]
        if id(parameter) in for_muon:
            state.setdefault("momentum_buffer", torch.zeros_like(parameter.detach()))
        else:
            place = torch.device("cpu") if isinstance(optimizer, Muon) else parameter.device
            state.setdefault("step", torch.zeros((), dtype=torch.float32, device=place))
            for moment in ("exp_avg", "exp_avg_sq"):
                state.setdefault(moment, torch.zeros_like(parameter.detach()))
        tensors |= {f"{key}.{name}": value for key, value in state.items() if isinstance(value, Tensor)}
    return tensors
