"""Optimisers of pretraining behind one interface: AdamW, the paper's, and Muon for short runs on small machines."""

import torch
from timm.optim._param_groups import param_groups_weight_decay
from torch import Tensor, nn

BETAS = (0.9, 0.95)  # arXiv 2512.15715, appendix


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon on the matrices inside transformer blocks, AdamW on everything else; both follow one learning rate.

    Muon orthogonalises the momentum of a matrix (K. Jordan et al. 2024, "Muon: an optimizer for hidden layers in
    neural networks"); its updates are scaled to the size of AdamW's (J. Liu et al., arXiv 2502.16982), so that
    learning rate and weight decay mean the same for both.
    """

    def __init__(self, module: nn.Module, weight_decay: float) -> None:
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
        self._muon = torch.optim.Muon(matrices, lr=0.0, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
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


def build_optimizer(name: str, module: nn.Module, weight_decay: float) -> torch.optim.Optimizer:
    """Build `adamw` or `muon`; weight decay applies to matrices and embeddings, not to vectors."""
    if name == "muon":
        return MuonWithAdamW(module, weight_decay)
    groups = param_groups_weight_decay(module, weight_decay)
    return torch.optim.AdamW(groups, lr=0.0, betas=BETAS, fused=True)
