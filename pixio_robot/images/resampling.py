"""Boxes of many images cut out and resized at once, as matrix products: for GPUs, where one image at a time is slow.

Shape letters: B images, H and W pixels of a frame, C channels, S pixels of a frame's side, O pixels of a result's side.
"""

import torch
from torch import Tensor

from pixio_robot.images.config import Filter

_TOGETHER = 256  # images in float at a time, which bounds memory
_CUBIC = -0.5  # as Pillow and torch have it where they antialias


def crop_together(frames_BHWC: Tensor, boxes_B4: Tensor, size: int, kind: Filter = "bilinear") -> Tensor:
    """Cut boxes out of uint8 frames and resize them with antialiasing: uint8 (B, C, size, size), on the frames' device.

    The same filters as `functional.interpolate(…, antialias=True)` uses, one box per image. torch's kernel for uint8 also rounds
    between its two passes, so that results differ by a level of 255 here and there.

    Args:
        frames_BHWC: uint8.
        boxes_B4: (top, left, height, width) in pixels, on the same device.
        size: Side of the results.
        kind: Filter.
    """
    parts = zip(frames_BHWC.split(_TOGETHER), boxes_B4.split(_TOGETHER), strict=True)
    return torch.cat([_crop(frames, boxes, size, kind) for frames, boxes in parts])


def _crop(frames_BHWC: Tensor, boxes_B4: Tensor, size: int, kind: Filter) -> Tensor:
    batch, height, width, channels = frames_BHWC.shape
    top_B, left_B, rows_B, columns_B = boxes_B4.unbind(1)
    down_BOS = _weights(top_B, rows_B, height, size, kind)
    across_BOS = _weights(left_B, columns_B, width, size, kind)
    x = down_BOS @ frames_BHWC.reshape(batch, height, width * channels).float()
    x = x.view(batch, size, width, channels).transpose(1, 2).reshape(batch, width, size * channels)
    x = (across_BOS @ x).view(batch, size, size, channels)  # columns, rows
    return x.permute(0, 3, 2, 1).round().clamp(0, 255).to(torch.uint8).contiguous()


def _weights(first_B: Tensor, length_B: Tensor, side: int, size: int, kind: Filter) -> Tensor:
    """Return how much each pixel of a side counts in each pixel of the result (B, O, S)."""
    device = first_B.device
    scale_B11 = (length_B.float() / size)[:, None, None]
    centre_BO1 = (torch.arange(size, device=device)[:, None] + 0.5) * scale_B11
    place_BS = torch.arange(side, device=device) - first_B[:, None]
    distance = ((place_BS[:, None] + 0.5 - centre_BO1) / scale_B11.clamp(min=1)).abs()
    if kind == "bilinear":
        weight = (1 - distance).clamp(min=0)
    else:
        near = ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance * distance + 1
        far = (((distance - 5) * distance + 8) * distance - 4) * _CUBIC
        weight = torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
    inside_BS = (place_BS >= 0) & (place_BS < length_B[:, None])
    weight = weight * inside_BS[:, None]
    return weight / weight.sum(dim=2, keepdim=True)
