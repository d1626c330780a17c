"""Predictions at full resolution: windows slide over an image, and what overlaps is averaged.

Shape letters: H and W pixels, S side of a window, V windows, K outputs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Return where windows begin along a side; the last one may reach beyond the end, and only one does."""
    return list(range(0, max(length - window, 0) + stride, stride)) if length > window else [0]


def cut_windows(image_3HW: Tensor, window: int, stride: int, colour_3: Tensor) -> Tensor:
    """Return the windows of an image (V, 3, S, S), row by row; what lies beyond it has the given colour."""
    height, width = image_3HW.shape[-2:]
    tops, lefts = (window_starts(length, window, stride) for length in (height, width))
    coloured = colour_3[:, None, None].repeat(1, tops[-1] + window, lefts[-1] + window)
    coloured[:, :height, :width] = image_3HW
    places = [(top, left) for top in tops for left in lefts]
    return torch.stack([coloured[:, top : top + window, left : left + window] for top, left in places])


def join_windows(windows: Sequence[Tensor] | Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """Average the predictions of windows (K, S, S), in the order of `cut_windows`, where they overlap: (K, H, W)."""
    window = windows[0].shape[-1]
    tops, lefts = (window_starts(length, window, stride) for length in size)
    total = windows[0].new_zeros(len(windows[0]), tops[-1] + window, lefts[-1] + window)
    count = torch.zeros_like(total[:1])
    places = [(top, left) for top in tops for left in lefts]
    for (top, left), values in zip(places, windows, strict=True):
        total[:, top : top + window, left : left + window] += values
        count[:, top : top + window, left : left + window] += 1
    return (total / count)[:, : size[0], : size[1]]
