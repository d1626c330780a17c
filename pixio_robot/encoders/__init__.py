"""Pixio encoders and their peers as timm models; what needs timm is imported when it is first used."""

import importlib
import sys
from typing import TYPE_CHECKING, Any

from pixio_robot.encoders.config import EncoderConfig

if TYPE_CHECKING:
    from pixio_robot.encoders.checkpoints import load_encoder_weights, weights_hash
    from pixio_robot.encoders.pixio import (
        NUM_CLASS_TOKENS,
        PIXIO_VARIANTS,
        PRETRAINABLE,
        PixioVisionTransformer,
    )
    from pixio_robot.encoders.readouts import READOUTS, readout
    from pixio_robot.encoders.vision_encoder import EncoderTokens, VisionEncoder

__all__ = [
    "NUM_CLASS_TOKENS",
    "PIXIO_VARIANTS",
    "PRETRAINABLE",
    "READOUTS",
    "EncoderConfig",
    "EncoderTokens",
    "PixioVisionTransformer",
    "VisionEncoder",
    "load_encoder_weights",
    "readout",
    "weights_hash",
]

_MODULES = ("vision_encoder", "pixio", "checkpoints", "readouts")


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Import torch and timm, which take seconds, where something that needs them is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _import_timm()
    for module in (importlib.import_module(f"{__name__}.{module}") for module in _MODULES):
        globals().update({public: getattr(module, public) for public in __all__ if hasattr(module, public)})
    return globals()[name]


def _import_timm() -> None:
    """Import timm without wandb, which it looks for on behalf of a training script of its own.

    That is a third of what a command of ours takes to start. None in the place of a module is Python's word for one that is
    not there.
    """
    if {"timm", "wandb"} & sys.modules.keys():
        return
    sys.modules["wandb"] = None  # pyright: ignore[reportArgumentType]
    try:
        importlib.import_module("timm")
    finally:
        del sys.modules["wandb"]
