"""What a training step costs in matrix products, and how many of them a device does in a second."""

import time

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pixio_robot.pretraining.config import PretrainConfig
from pixio_robot.pretraining.model.execution import use_plain_attention
from pixio_robot.pretraining.model.mae import PixioMAE
from pixio_robot.pretraining.model.weights import create_encoder

SQUARE = 8192
"""Side of the square product that a GPU's rate is measured by."""


def flops_per_image(config: PretrainConfig) -> float:
    """Count the floating-point operations of matrix products, forward and backward, that an image needs.

    Counted on the model itself, by shapes alone; what `activation_checkpointing` computes twice counts once.
    """
    with torch.device("meta"):
        encoder = create_encoder(config.variant, config.image_size)
        decoder = (config.decoder_dim, config.decoder_depth, config.decoder_heads)
        mae = PixioMAE(encoder, *decoder, config.mask_ratio, config.mask_block)
        blocks = (config.image_size // 16 // config.mask_block) ** 2
        masked = round(config.mask_ratio * blocks) * config.mask_block**2
        images_BCHW = torch.empty(2, 3, config.image_size, config.image_size)
        patches_BN = torch.zeros(2, (config.image_size // 16) ** 2, dtype=torch.long)
    encoder.requires_grad_(not config.freeze_encoder)
    use_plain_attention(mae)
    with FlopCounterMode(display=False) as counter:
        mae(images_BCHW, patches=(patches_BN[:, masked:], patches_BN[:, :masked])).loss.backward()
    return counter.get_total_flops() / 2


def product_rate(
    device: torch.device,
    dtype: torch.dtype,
    shape: tuple[int, int, int] = (SQUARE, SQUARE, SQUARE),
    seconds: float = 0.5,
) -> float:
    """Measure how many floating-point operations a second a product of (rows, inner) by (inner, columns) reaches."""
    rows, inner, columns = shape
    left = torch.randn(rows, inner, device=device, dtype=dtype)
    right = torch.randn(columns, inner, device=device, dtype=dtype)

    def timed(repeats: int) -> float:
        started = time.perf_counter()
        for _ in range(repeats):
            result = nn.functional.linear(left, right)
        result[0, 0].item()
        return time.perf_counter() - started

    timed(2)
    repeats = max(1, int(seconds / 4 / max(timed(1), 1e-6)))
    return 2 * rows * inner * columns * repeats / min(timed(repeats) for _ in range(3))
