"""The most that a machine's matrix products reach, and how many of them an image needs."""

import time

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pixio_robot.pretraining.config import Precision, PretrainConfig
from pixio_robot.pretraining.model.execution import use_plain_attention
from pixio_robot.pretraining.objectives.reconstruction import Reconstruction


def flops_per_image(config: PretrainConfig) -> float:
    """Count the floating-point operations of matrix products, forward and backward, that an image needs.

    Counted on the real model (visible patches in the encoder, head on masked ones), whatever a rung does besides.
    """
    torch.manual_seed(config.seed)
    mae = Reconstruction(config).module
    use_plain_attention(mae)
    with FlopCounterMode(display=False) as counter:
        mae(torch.randn(2, 3, config.image_size, config.image_size), torch.Generator().manual_seed(0)).loss.backward()
    return counter.get_total_flops() / 2


def matmul_ceiling(config: PretrainConfig, precision: Precision, seconds: float = 0.5) -> float:
    """Measure the fastest of the model's matrix products: floating-point operations per second.

    Tried are the two linear layers of the MLP in encoder and decoder, with as many rows as a part of a batch has, and
    a square product of 2048.
    """
    mae = Reconstruction(config).module
    part, patches = config.batch_size // config.accumulation, (config.image_size // 16) ** 2
    classes, dim, width = mae.encoder.num_prefix_tokens, mae.encoder.embed_dim, config.decoder_dim
    visible = patches - round(config.mask_ratio * patches)
    shapes = [
        (part * (classes + visible), dim, 4 * dim),
        (part * (classes + visible), 4 * dim, dim),
        (part * (classes + patches), width, 4 * width),
        (part * (classes + patches), 4 * width, width),
        (2048, 2048, 2048),
    ]
    return max(_product_rate(*shape, getattr(torch, precision), config.device, seconds) for shape in shapes)


def _product_rate(rows: int, inner: int, columns: int, dtype: torch.dtype, device: str, seconds: float) -> float:
    left, right = (
        torch.randn(rows, inner, device=device, dtype=dtype),
        torch.randn(columns, inner, device=device, dtype=dtype),
    )

    def timed(repeats: int) -> float:
        started = time.perf_counter()
        for _ in range(repeats):
            result = nn.functional.linear(left, right)
        result[0, 0].item()
        return time.perf_counter() - started

    timed(2)
    repeats = max(1, int(seconds / 4 / max(timed(1), 1e-6)))
    return 2 * rows * inner * columns * repeats / min(timed(repeats) for _ in range(3))
