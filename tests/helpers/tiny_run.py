"""Settings of the smallest pretraining run, which tests vary."""

from pixio_robot.images.augment import Photometric
from pixio_robot.pretraining.config import PretrainConfig

TINY = PretrainConfig(
    variant="pixio_tiny16",
    image_size=32,
    decoder_dim=32,
    decoder_depth=1,
    decoder_heads=2,
    mask_ratio=0.5,
    mask_block=1,
    batch_size=8,
    accumulation=2,
    steps=4,
    lr=1e-3,
    photometric=Photometric(),
)
