"""Pixio encoders and their peers as timm models; importing this registers the Pixio variants."""

import sys

# For a helper of its own training script timm imports wandb where it finds it: a third of what a command of ours
# takes to start. None in its place is Python's word for a module that is not there.
if not {"timm", "wandb"} & sys.modules.keys():
    sys.modules["wandb"] = None  # pyright: ignore[reportArgumentType]
    try:
        import timm  # noqa: F401
    finally:
        del sys.modules["wandb"]

from pixio_robot.encoders.checkpoints import load_encoder_weights, weights_hash
from pixio_robot.encoders.pixio import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    NUM_CLASS_TOKENS,
    PIXIO_VARIANTS,
    PRETRAINABLE,
    PixioVisionTransformer,
)
from pixio_robot.encoders.readouts import READOUTS, readout
from pixio_robot.encoders.vision_encoder import EncoderConfig, EncoderTokens, VisionEncoder
from pixio_robot.images.preprocessing import ImagePreprocessor, frames_to_images

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "NUM_CLASS_TOKENS",
    "PIXIO_VARIANTS",
    "PRETRAINABLE",
    "READOUTS",
    "EncoderConfig",
    "EncoderTokens",
    "ImagePreprocessor",
    "PixioVisionTransformer",
    "VisionEncoder",
    "frames_to_images",
    "load_encoder_weights",
    "readout",
    "weights_hash",
]
