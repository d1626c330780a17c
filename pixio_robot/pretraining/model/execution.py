"""How transformer blocks are executed, which changes their speed and not what they compute."""

import logging

import torch
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block
from torch import nn

log = logging.getLogger(__name__)


def use_plain_attention(module: nn.Module) -> None:
    """Compute attention as plain matrix products instead of torch's fused kernel.

    On CPUs the backward pass of the fused kernel takes 43 % of a bfloat16 step (torch 2.11); plain products are 1.8
    times as fast over the whole step, and as fast as fused in float32.
    """
    for layer in module.modules():
        if isinstance(layer, Attention):
            layer.fused_attn = False  # pyright: ignore[reportAttributeAccessIssue] (final for TorchScript only)


def use_bfloat16_residuals(module: nn.Module) -> None:
    """Let stacks of transformer blocks add up in bfloat16 what autocast computes in it; norms are computed in float32."""

    def enter(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        (x,) = inputs
        return (x.to(torch.bfloat16) if torch.is_autocast_enabled(x.device.type) else x,)

    for stack in module.modules():
        if isinstance(stack, nn.Sequential) and len(stack) and isinstance(stack[0], Block):
            stack.register_forward_pre_hook(enter)


def compile_blocks(module: nn.Module, device: torch.device) -> bool:
    """Compile every transformer block of a module in place with `torch.compile`; names of parameters stay.

    Blocks of equal shape share one compilation (some half a minute for each shape on a CPU, kept on disk for the next
    run). Normalisation, GELU, residual additions and the casts of autocast become one pass over memory each.

    Args:
        module: Its timm blocks are compiled, whatever lies around them.
        device: Where the module will run; it may still be on the meta device.

    Returns:
        Whether blocks are compiled: without a working compiler (g++ or clang++ on a CPU, Triton on a GPU) a warning
        says so and everything stays as it is.
    """
    blocks = [block for block in module.modules() if isinstance(block, Block)]
    reason = _cannot_compile(device)
    if reason:
        log.warning("blocks are not compiled, which is slower and otherwise the same: %s", reason)
        return False
    for block in blocks:
        block.compile(dynamic=False)
    return True


def _cannot_compile(device: torch.device) -> str:
    """Compile something tiny; return why that fails, or nothing."""

    @torch.compile(dynamic=False)
    def probe(x: torch.Tensor) -> torch.Tensor:
        return x.relu() + 1

    try:
        probe(torch.zeros(4, device=device))
    except Exception as error:  # compilers fail in many ways, and none of them is worth a run
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:160]}"
    return ""
