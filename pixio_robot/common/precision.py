"""Whether this machine gains by a lower precision."""

import logging
import time

import torch

log = logging.getLogger(__name__)

_SIDE = 256
"""Of the square matrices that are timed: a millisecond each on one core."""


def multiplies_bfloat16() -> bool:
    """Tell whether this processor has instructions that multiply matrices of bfloat16, and gains by it.

    The answer is the processor's own, and not a measured time: results must not depend on what else runs.
    """
    has = torch.cpu.get_capabilities()
    return any(bool(has.get(name)) for name in ("amx_bf16", "avx512_bf16"))


def bfloat16_slowdown(rounds: int = 7) -> float:
    """Time a product of matrices in both precisions on the CPU: seconds in bfloat16 over seconds in float32.

    Processors without instructions for bfloat16 compute it by way of float32, in two to eighty times as long.
    """
    matrices = {dtype: torch.ones(_SIDE, _SIDE, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)}
    fastest = dict.fromkeys(matrices, float("inf"))
    for _ in range(rounds):  # in turn, so that a busy moment of the machine does not decide
        for dtype, matrix in matrices.items():
            started = time.perf_counter()
            _ = matrix @ matrix
            fastest[dtype] = min(fastest[dtype], time.perf_counter() - started)
    return fastest[torch.bfloat16] / fastest[torch.float32]


def warn_of_slow_bfloat16(setting: str, slowdown: float | None = None) -> None:
    """Say so where bfloat16 on this CPU is slower than float32, which it gives no other reason to choose.

    Args:
        setting: The setting that asks for bfloat16, for instance `trainer.precision`.
        slowdown: See `bfloat16_slowdown`; None measures it.
    """
    slowdown = bfloat16_slowdown() if slowdown is None else slowdown
    if slowdown > 1:
        log.warning(
            "%s=bfloat16 is slow here: this processor takes %.1f times as long for bfloat16 matrix products as for "
            "float32; %s=float32 is faster",
            setting,
            slowdown,
            setting,
        )
