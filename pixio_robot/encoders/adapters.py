"""Low-rank adapters (LoRA, through peft) inside a backbone; the one module that knows peft.

Source: E. Hu et al. 2021, "LoRA: low-rank adaptation of large language models", arXiv 2106.09685.
"""

import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from pixio_robot.common.errors import UserError

_ADAPTER_KEY = re.compile(r"(^|\.)lora_")
_WRAPPED = ".base_layer."


def add_adapters(backbone: nn.Module, rank: int, alpha: float, targets: Sequence[str]) -> None:
    """Put a LoRA beside every targeted layer, in place; afterwards only the adapters take gradients.

    The adapters start at zero, so that the backbone's output is unchanged.

    Args:
        backbone: The model; its linear and convolutional layers can be targets.
        rank: Rank of the adapters.
        alpha: Their scale is alpha / rank.
        targets: Ends of layer names, for example `attn.qkv`.

    Raises:
        UserError: A target matches no layer; the rank is not positive; peft is not installed.
    """
    if rank < 1:
        raise UserError(f"encoder.lora_rank is {rank}: LoRA needs a rank of at least 1, for example 8.")
    layers = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    unmatched = [target for target in targets if not any(f".{name}".endswith(f".{target}") for name in layers)]
    if unmatched or not targets:
        # Blocks repeat their layers: what follows the last number names them all.
        kinds = dict.fromkeys(re.sub(r"^.*\.\d+\.(?=\D)", "", name) for name in layers)
        wrong = ", ".join(map(repr, unmatched)) if unmatched else "an empty list"
        raise UserError(
            f"encoder.lora_targets: {wrong} matches no layer of this encoder; its layers end in {', '.join(kinds)}."
        )
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UserError("encoder.mode=lora needs peft: install it with `pip install 'pixio-robot[lora]'`.") from error
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets)), backbone)  # type: ignore[arg-type]


def merge_adapters(backbone: nn.Module) -> None:
    """Add every adapter to the layer that it stands beside and remove it, in place."""
    from peft.tuners.lora import LoraLayer

    wrapped: dict[str, Any] = {name: layer for name, layer in backbone.named_modules() if isinstance(layer, LoraLayer)}
    for name, layer in wrapped.items():
        layer.merge()
        backbone.set_submodule(name, layer.get_base_layer())


def base_keys(backbone: nn.Module) -> dict[str, str]:
    """Return the keys of a backbone's own weights, by the names they have without adapters."""
    return {key.replace(_WRAPPED, "."): key for key in backbone.state_dict() if not _ADAPTER_KEY.search(key)}


def base_weights(backbone: nn.Module) -> dict[str, Tensor]:
    """Return a backbone's own weights as they would be named without adapters; without adapters, its state."""
    state = backbone.state_dict()
    return {name: state[key] for name, key in base_keys(backbone).items()}
