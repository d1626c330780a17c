"""Compiled transformer blocks, where the machine can compile."""

import logging

import torch
from timm.models.vision_transformer import Block
from torch import nn

log = logging.getLogger(__name__)


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
