"""Which weights learn how fast: the policy at the trainer's rate, its encoder at one of its own.

Source of the layer-wise decay: H. Bao et al. 2021, "BEiT", arXiv 2106.08254, as timm implements it.
"""

import math
from collections.abc import Callable
from typing import Any

from timm.optim._param_groups import param_groups_layer_decay
from torch import nn

from pixio_robot.training.config import TrainerConfig
from pixio_robot.training.policy.objective import find_encoder

_FINETUNE_SHARE = 0.1
"""Share of the policy's learning rate with which pretrained weights are fine-tuned by default."""


def parameter_groups(policy: nn.Module, config: TrainerConfig) -> list[dict[str, Any]]:
    """Return an optimiser's parameter groups: the policy's own weights, then the encoder's, a group for each layer.

    The encoder's last layer learns with `encoder_learning_rate`, every earlier one with `encoder_layer_decay` of
    the next one's. Its vectors, position embeddings and class tokens do not decay.
    """
    encoder = find_encoder(policy)
    of_encoder = {id(parameter) for parameter in encoder.parameters()} if encoder is not None else set()
    own = [
        parameter for parameter in policy.parameters() if parameter.requires_grad and id(parameter) not in of_encoder
    ]
    groups: list[dict[str, Any]] = [{"params": own, "lr": config.learning_rate, "weight_decay": config.weight_decay}]
    if encoder is None or not any(parameter.requires_grad for parameter in encoder.parameters()):
        return groups
    peak = config.encoder_learning_rate
    if peak is None:  # adapters start at nothing, like the policy's own weights
        peak = config.learning_rate * (_FINETUNE_SHARE if encoder.config.mode == "finetune" else 1.0)
    undecayed = encoder.backbone.no_weight_decay() if hasattr(encoder.backbone, "no_weight_decay") else ()
    for layer in param_groups_layer_decay(
        encoder.backbone,
        weight_decay=config.weight_decay,
        no_weight_decay_list=undecayed,
        layer_decay=config.encoder_layer_decay,
    ):
        learning_rate = peak * layer["lr_scale"]
        groups.append({"params": layer["params"], "lr": learning_rate, "weight_decay": layer["weight_decay"]})
    return groups


def schedules(groups: list[dict[str, Any]], config: TrainerConfig) -> list[Callable[[int], float]]:
    """Return the schedule of each of the groups that `parameter_groups` gave, as shares of its peak."""
    return [
        lambda step: learning_rate_factor(step, config),
        *[lambda step: encoder_factor(step, config)] * (len(groups) - 1),
    ]


def learning_rate_factor(step: int, config: TrainerConfig) -> float:
    """Return the share of the peak learning rate at a step: linear warm-up, then a cosine to zero or the peak."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    progress = (step - config.warmup_steps) / max(config.steps - config.warmup_steps, 1)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def encoder_factor(step: int, config: TrainerConfig) -> float:
    """Return the encoder's share: none while it is held frozen, then a warm-up of its own under the same cosine."""
    released = step - config.encoder_frozen_steps
    if released < 0:
        return 0.0
    warmup = min(1.0, (released + 1) / max(config.warmup_steps, 1))
    return warmup * learning_rate_factor(max(step, config.warmup_steps), config)
