"""Readouts: what a head takes from `EncoderTokens`.

Shape letters: B batch, G global tokens, D width, h and w patch-grid size.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.encoders.vision_encoder import EncoderTokens


def cls_mean(tokens: EncoderTokens) -> Tensor:
    """Return the mean of the global tokens, (B, D); the paper's readout for robot learning (table 5)."""
    return tokens.global_tokens.mean(dim=1)


def cls(tokens: EncoderTokens) -> Tensor:
    """Return the global tokens side by side, (B, G·D)."""
    return tokens.global_tokens.flatten(1)


def flatten(tokens: EncoderTokens) -> Tensor:
    """Return all tokens side by side, (B, (G + h·w)·D), so that a linear map can use where they are."""
    return tokens.flatten().flatten(1)


def patch_map(tokens: EncoderTokens) -> Tensor:
    """Return the patch tokens as a feature map, (B, D, h, w)."""
    return tokens.patch_tokens.permute(0, 3, 1, 2)


def patch_and_cls(tokens: EncoderTokens) -> Tensor:
    """Return patch tokens ⊕ mean global token, (B, 2·D, h, w); the paper's dense-head feature."""
    patches_BDhw = patch_map(tokens)
    mean_BD11 = cls_mean(tokens)[:, :, None, None]
    return torch.cat([patches_BDhw, mean_BD11.expand_as(patches_BDhw)], dim=1)


READOUTS: dict[str, Callable[[EncoderTokens], Tensor]] = {
    function.__name__: function for function in (cls_mean, cls, flatten, patch_map, patch_and_cls)
}


def readout(name: str) -> Callable[[EncoderTokens], Tensor]:
    """Return a readout by name.

    Raises:
        UserError: Unknown name.
    """
    if name not in READOUTS:
        raise UserError(f"Unknown readout {name!r}. {nearest_name(name, READOUTS)}")
    return READOUTS[name]
