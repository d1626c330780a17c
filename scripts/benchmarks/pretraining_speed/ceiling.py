"""The most that a machine's matrix products reach among those of a model."""

import torch

from pixio_robot.pretraining.config import Precision, PretrainConfig
from pixio_robot.pretraining.model.cost import product_rate
from pixio_robot.pretraining.objectives.reconstruction import Reconstruction


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
    device, dtype = torch.device(config.device), getattr(torch, precision)
    return max(product_rate(device, dtype, shape, seconds) for shape in shapes)
