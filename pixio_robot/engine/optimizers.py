"""Optimisers of pretraining behind one interface: AdamW, the paper's, and Muon for short runs on small machines."""

import torch
from timm.optim._param_groups import param_groups_weight_decay
from timm.optim.muon import get_lr_scale, zeropower_via_newtonschulz
from torch import Tensor, nn

from pixio_robot.pretraining.config import Precision

BETAS = (0.9, 0.95)  # arXiv 2512.15715, appendix


class _Float32Muon(torch.optim.Muon):
    """Muon that orthogonalises in float32 and not, as torch's own does, in bfloat16.

    A processor without instructions for bfloat16 spends most of a step on that: on an EPYC of the third generation, for
    the matrices of `pixio_tiny` and its decoder, 6.7 s against 0.3 s (one thread).
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Do one step."""
        assert closure is None
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                buffer = state["momentum_buffer"]
                buffer.lerp_(parameter.grad, 1 - momentum)
                update = zeropower_via_newtonschulz(
                    parameter.grad.lerp(buffer, momentum),
                    group["ns_steps"],
                    [group["ns_coefficients"]],
                    group["eps"],
                    dtype=torch.float32,
                )
                parameter.mul_(1 - rate * group["weight_decay"])
                parameter.add_(update, alpha=-rate * get_lr_scale(parameter.shape, group["adjust_lr_fn"]))


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon on the matrices inside transformer blocks, AdamW on everything else; both follow one learning rate.

    Muon orthogonalises the momentum of a matrix (K. Jordan et al. 2024, "Muon: an optimizer for hidden layers in
    neural networks"); its updates are scaled to the size of AdamW's (J. Liu et al., arXiv 2502.16982), so that
    learning rate and weight decay mean the same for both.
    """

    def __init__(self, module: nn.Module, weight_decay: float, precision: Precision) -> None:
        """Share out the trainable parameters of a module."""
        matrices = [
            parameter
            for name, parameter in module.named_parameters()
            if parameter.requires_grad and parameter.ndim == 2 and ".blocks." in f".{name}"
        ]
        taken = {id(parameter) for parameter in matrices}
        groups = param_groups_weight_decay(module, weight_decay)
        for group in groups:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in taken]
        muon = _Float32Muon if precision == "float32" else torch.optim.Muon
        self._muon = muon(matrices, lr=0.0, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        self._adam = torch.optim.AdamW(groups, lr=0.0, betas=BETAS, fused=True)
        self._matrices = taken
        super().__init__([*self._muon.param_groups, *self._adam.param_groups], {})
        # One state and the very groups of the two, so that what is set or restored here reaches them.
        self.param_groups = [*self._muon.param_groups, *self._adam.param_groups]
        self._muon.state = self._adam.state = self.state

    def is_for_muon(self, parameter: Tensor) -> bool:
        """Whether a parameter is one of the matrices."""
        return id(parameter) in self._matrices

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Do one step of both."""
        assert closure is None
        self._muon.step()
        self._adam.step()


def initial_state(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """Return what the optimiser keeps of a parameter, made where no step has been done."""
    state = optimizer.state[parameter]
    if state:
        return state
    if isinstance(optimizer, MuonWithAdamW) and optimizer.is_for_muon(parameter):
        state["momentum_buffer"] = torch.zeros_like(parameter.detach())
    else:
        state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        state.update({moment: torch.zeros_like(parameter.detach()) for moment in ("exp_avg", "exp_avg_sq")})
    return state


def build_optimizer(
    name: str, module: nn.Module, weight_decay: float, precision: Precision = "float32"
) -> torch.optim.Optimizer:
    """Build an optimiser with a learning rate of 0.

    Args:
        name: `adamw` or `muon`.
        module: Its trainable parameters are shared out; Muon takes the matrices in `blocks`.
        weight_decay: On matrices and embeddings, not on vectors.
        precision: Of the forward pass: with float32, Muon's own matrix products are in float32, too, otherwise in
            bfloat16.
    """
    if name == "muon":
        return MuonWithAdamW(module, weight_decay, precision)
    groups = param_groups_weight_decay(module, weight_decay)
    return torch.optim.AdamW(groups, lr=0.0, betas=BETAS, fused=True)
