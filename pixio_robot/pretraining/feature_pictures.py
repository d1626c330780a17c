"""Pictures of what an encoder sees: patch features as colours and where each class token looks.

Shape letters: B images, H and W pixels, G class tokens, D width, h and w patch-grid size, L tokens, M heads.
"""

from typing import Any

import matplotlib
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pixio_robot.encoders import PixioVisionTransformer
from pixio_robot.images.preprocessing import frames_to_images, normalise
from pixio_robot.pretraining.pictures import tile

_OVERLAY = 0.65  # share of the heat map in the picture; the rest is the image in grey


@torch.no_grad()
def class_token_attention(encoder: PixioVisionTransformer, images_BCHW: Tensor) -> Tensor:
    """Return what each class token attends to in the last block, mean over heads: (B, G, h, w).

    Args:
        encoder: In evaluation mode.
        images_BCHW: Normalised images.

    Returns:
        Shares of a class token's attention; they sum to at most 1 over patches, the rest goes to class tokens.
    """
    blocks: Any = encoder.blocks
    attention = blocks[-1].attn
    inputs: list[Tensor] = []
    hook = attention.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    try:
        encoder.forward_features(images_BCHW)
    finally:
        hook.remove()
    (x_BLD,) = inputs
    classes = encoder.num_prefix_tokens
    qkv = attention.qkv(x_BLD).unflatten(-1, (3, attention.num_heads, attention.head_dim))
    query_BMGd, key_BMLd = qkv[:, :classes, 0].transpose(1, 2), qkv[:, :, 1].transpose(1, 2)
    weights_BMGL = (attention.scale * query_BMGd @ key_BMLd.transpose(-2, -1)).softmax(dim=-1)
    h, w = (side // int(encoder.patch_embed.patch_size[0]) for side in images_BCHW.shape[-2:])
    return weights_BMGL.mean(dim=1)[..., classes:].unflatten(-1, (h, w))


def principal_colours(tokens_BhwD: Tensor) -> Tensor:
    """Return the first three principal components of patch features as RGB in [0, 1]: (B, h, w, 3).

    The components are those of all images together, so that a colour means the same in each.
    """
    features_ND = tokens_BhwD.flatten(0, 2).double()
    features_ND = features_ND - features_ND.mean(dim=0)
    _, vectors_DD = torch.linalg.eigh(features_ND.T @ features_ND)
    axes_D3 = vectors_DD[:, -3:].flip(1)
    # An eigenvector's sign is arbitrary: the largest entry is made positive, so that a run's pictures can be compared.
    axes_D3 = axes_D3 * axes_D3.gather(0, axes_D3.abs().argmax(dim=0, keepdim=True)).sign()
    components_N3 = features_ND @ axes_D3
    low, high = torch.quantile(components_N3, torch.tensor([0.01, 0.99], dtype=torch.double), dim=0)
    scaled = ((components_N3 - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    return scaled.float().view(*tokens_BhwD.shape[:3], 3)


@torch.no_grad()
def feature_picture(encoder: PixioVisionTransformer, frames_BHWC: Tensor) -> np.ndarray:
    """Show what an encoder sees in frames: a row each of image, patch features, and attention of every class token.

    Args:
        encoder: In evaluation mode.
        frames_BHWC: uint8 frames, sides divisible by the patch.

    Returns:
        One uint8 RGB picture (B·H + gaps, (2 + G)·W + gaps, 3).
    """
    images_BCHW = frames_to_images(frames_BHWC)
    normalised = normalise(images_BCHW.to(encoder.cls_token.device))
    attention_BGhw = class_token_attention(encoder, normalised).float().cpu()
    grid = attention_BGhw.shape[-2:]
    tokens_BLD = encoder.forward_features(normalised)[:, encoder.num_prefix_tokens :].float().cpu()
    colours_BChw = principal_colours(tokens_BLD.unflatten(1, grid)).permute(0, 3, 1, 2)
    size = images_BCHW.shape[-2:]
    columns = [images_BCHW, functional.interpolate(colours_BChw, size, mode="nearest")]
    columns += [_heat(images_BCHW, attention_Bhw) for attention_Bhw in attention_BGhw.unbind(1)]
    rows = torch.stack(columns, dim=1)  # (B, 2 + G, C, H, W)
    return tile(list(rows))


def _heat(images_BCHW: Tensor, attention_Bhw: Tensor) -> Tensor:
    """Lay a heat map, scaled to the most attended patch of each image, over the image in grey."""
    scaled = attention_Bhw / attention_Bhw.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    smooth = functional.interpolate(scaled[:, None], images_BCHW.shape[-2:], mode="bilinear", align_corners=False)
    colours = torch.from_numpy(matplotlib.colormaps["inferno"](smooth[:, 0].numpy())[..., :3]).float()
    grey = images_BCHW.mean(dim=1, keepdim=True).expand_as(images_BCHW)
    return (1 - _OVERLAY) * grey + _OVERLAY * colours.permute(0, 3, 1, 2)
