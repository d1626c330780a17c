"""Random resized crops on uint8 frames and photometric changes on batches.

Shape letters: B images, C channels, H and W pixels, T tries.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pixio_robot.images.config import Filter, Photometric, Range

CROP_TRIES = 10  # as torchvision's RandomResizedCrop
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as torchvision's rgb_to_grayscale
_RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def random_crops(aspect_B: Tensor, sides_B2: Tensor, scale: Range, ratio: Range, generator: torch.Generator) -> Tensor:
    """Draw RandomResizedCrop boxes for images that may have been squashed.

    Args:
        aspect_B: Width / height of each image before squashing: scale and ratio refer to that geometry.
        sides_B2: Height and width of each image as it is now, in pixels.
        scale: Range of the crop's area, as a fraction of the image's.
        ratio: Range of the crop's width / height, drawn uniformly in its logarithm.
        generator: Source of randomness.

    Returns:
        boxes_B4: int64 (top, left, height, width) in pixels of the images as they are now.
    """
    batch = len(aspect_B)
    area_BT = torch.empty(batch, CROP_TRIES).uniform_(*scale, generator=generator)
    low, high = torch.tensor(ratio).log().tolist()
    ratio_BT = torch.empty(batch, CROP_TRIES).uniform_(low, high, generator=generator).exp()
    relative_BT = ratio_BT / aspect_B[:, None]
    width_BT, height_BT = (area_BT * relative_BT).sqrt(), (area_BT / relative_BT).sqrt()
    fits_BT = (width_BT <= 1) & (height_BT <= 1)
    first_B1 = fits_BT.to(torch.uint8).argmax(dim=1, keepdim=True)
    # When no try fits (very long images): the largest central crop of an allowed ratio, as torchvision does.
    closest_B = aspect_B.clamp(*ratio)
    fallback_width, fallback_height = (closest_B / aspect_B).clamp(max=1), (aspect_B / closest_B).clamp(max=1)
    found_B = fits_BT.any(dim=1)
    width_B = torch.where(found_B, width_BT.gather(1, first_B1)[:, 0], fallback_width)
    height_B = torch.where(found_B, height_BT.gather(1, first_B1)[:, 0], fallback_height)
    size_B2 = (torch.stack([height_B, width_B], dim=1) * sides_B2).round().long().clamp(min=1).minimum(sides_B2)
    place_B2 = torch.rand(batch, 2, generator=generator)
    place_B2 = torch.where(found_B[:, None], place_B2, 0.5)
    corner_B2 = (place_B2 * (sides_B2 - size_B2 + 1)).long()
    return torch.cat([corner_B2, size_B2], dim=1)


def crop_and_resize(
    frames: Sequence[Tensor] | Tensor, boxes_B4: Tensor, size: int, kind: Filter = "bilinear"
) -> Tensor:
    """Cut boxes out of uint8 frames (H, W, C) and resize them with antialias: uint8 (B, C, size, size).

    One image at a time on the CPU: there the uint8 kernel beats what `crop_together` does for GPUs.
    """
    channels = frames[0].shape[-1]
    out = torch.empty(len(frames), channels, size, size, dtype=torch.uint8, memory_format=torch.channels_last)
    for index, (top, left, height, width) in enumerate(boxes_B4.tolist()):
        crop = frames[index][top : top + height, left : left + width].permute(2, 0, 1)[None]
        out[index] = functional.interpolate(crop, (size, size), mode=kind, antialias=True)[0]
    return out


def _uniform(limits: Range, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.empty(shape).uniform_(*limits, generator=generator)


def _colour_matrices(batch: int, settings: Photometric, generator: torch.Generator) -> Tensor:
    """Brightness, channel gains, saturation and hue of each image as one linear map of RGB: (B, 3, 3)."""
    eye = torch.eye(3)
    luma = torch.tensor(_LUMA).expand(3, 3)
    gain_B3 = _uniform(settings.channel_gain, (batch, 3), generator)
    gain_B3 = gain_B3 * _uniform(settings.brightness, (batch, 1), generator)
    saturation_B = _uniform(settings.saturation, (batch,), generator)
    saturation_B[torch.rand(batch, generator=generator) < settings.grey] = 0.0
    angle_B = 2 * torch.pi * _uniform((-settings.hue, settings.hue), (batch,), generator)
    rotation = torch.zeros(batch, 3, 3)
    rotation[:, 0, 0] = 1.0
    rotation[:, 1, 1] = rotation[:, 2, 2] = angle_B.cos()
    rotation[:, 2, 1] = angle_B.sin()
    rotation[:, 1, 2] = -angle_B.sin()
    to_yiq = torch.tensor(_RGB_TO_YIQ)
    hue = torch.linalg.inv(to_yiq) @ rotation @ to_yiq
    saturate = luma + saturation_B[:, None, None] * (eye - luma)
    return torch.diag_embed(gain_B3) @ saturate @ hue


class ColourChanges(NamedTuple):
    """Drawn photometric changes of B images: a linear map of RGB (B, 3, 3) and a contrast factor (B, 1, 1)."""

    matrix_B33: Tensor
    contrast_B11: Tensor


def draw_changes(batch: int, settings: Photometric, generator: torch.Generator) -> ColourChanges:
    """Draw light and colour changes for `batch` images from a generator on the CPU."""
    matrix_B33 = _colour_matrices(batch, settings, generator)
    contrast_B11 = _uniform(settings.contrast, (batch, 1, 1), generator)
    unchanged_B11 = torch.rand(batch, 1, 1, generator=generator) >= settings.probability
    return ColourChanges(
        torch.where(unchanged_B11, torch.eye(3), matrix_B33), torch.where(unchanged_B11, 1.0, contrast_B11)
    )


def change_photometrically(images_BCHW: Tensor, changes: ColourChanges) -> Tensor:
    """Change light and colour of images in [0, 1]; all changes but the final clamp are one affine map per image.

    Args:
        images_BCHW: RGB float images in [0, 1], on any device.
        changes: What `draw_changes` drew for these images.
    """
    device = images_BCHW.device
    matrix_B33, contrast_B11 = (change.to(device, non_blocking=True) for change in changes)
    pixels_B3P = images_BCHW.flatten(2)
    mean_B31 = matrix_B33 @ pixels_B3P.mean(dim=2, keepdim=True)
    luminance_B11 = (mean_B31 * torch.tensor(_LUMA, device=device)[:, None]).sum(dim=1, keepdim=True)
    offset_B11 = (1 - contrast_B11) * luminance_B11
    changed = torch.baddbmm(offset_B11, contrast_B11 * matrix_B33, pixels_B3P)
    return changed.clamp_(0, 1).view_as(images_BCHW)
