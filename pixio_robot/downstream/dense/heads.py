"""Heads on frozen features: linear, and DPT (R. Ranftl et al. 2021, "Vision transformers for dense prediction").

Both read levels of patch tokens ⊕ mean class token, as in arXiv 2512.15715: the linear head the last one, DPT all four.

Shape letters: B images, C channels, h and w grid of a level, H and W pixels, K outputs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def upsample(values_BKhw: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize bilinearly, corners on corners."""
    return functional.interpolate(values_BKhw, size, mode="bilinear", align_corners=True)


class LinearHead(nn.Module):
    """Batch norm, 1×1 convolution, bilinear resize of the last level."""

    def __init__(self, channels: Sequence[int], outputs: int) -> None:
        """Build the head.

        Args:
            channels: Of the levels.
            outputs: Numbers K of a pixel.
        """
        super().__init__()
        self.norm = nn.BatchNorm2d(channels[-1])
        self.project = nn.Conv2d(channels[-1], outputs, 1)

    def forward(self, levels: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Return (B, K, H, W).

        Args:
            levels: (B, C, h, w) each.
            size: H and W.
        """
        return upsample(self.project(self.norm(levels[-1])), size)


class DPTHead(nn.Module):
    """Four levels, brought to grids of ×4, ×2, ×1 and ×½ and fused from the coarsest to the finest, without batch norm."""

    def __init__(
        self, channels: Sequence[int], outputs: int, width: int, widths: Sequence[int], *, pyramid: bool = False
    ) -> None:
        """Build the head.

        Args:
            channels: Of the four levels.
            outputs: Numbers K of a pixel.
            width: Channels of the fusion; 256 in the paper.
            widths: Channels of the levels before that; 256, 512, 1024 and 1024 in the paper.
            pyramid: Whether the levels come on finer and coarser grids already, as a convolutional network's do.
        """
        super().__init__()
        assert len(channels) == len(widths) == 4
        self.project = nn.ModuleList(nn.Conv2d(own, new, 1) for own, new in zip(channels, widths, strict=True))
        resample: list[nn.Module] = [
            nn.ConvTranspose2d(widths[0], widths[0], 4, stride=4),
            nn.ConvTranspose2d(widths[1], widths[1], 2, stride=2),
            nn.Identity(),
            nn.Conv2d(widths[3], widths[3], 3, stride=2, padding=1),
        ]
        self.resample = nn.ModuleList([nn.Identity()] * 4 if pyramid else resample)
        self.narrow = nn.ModuleList(nn.Conv2d(own, width, 3, padding=1, bias=False) for own in widths)
        self.fuse = nn.ModuleList(_Fusion(width) for _ in widths)
        # Nothing comes from below the coarsest level: the public heads hold this unit and never run it, and so their size
        # is the size of this one.
        self.fuse[-1].get_submodule("lateral").requires_grad_(False)
        self.predict = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, outputs, 1))

    def forward(self, levels: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Return (B, K, H, W).

        Args:
            levels: Four of (B, C, h, w), the finest first.
            size: H and W.
        """
        # The CPU's convolutions are faster by a third where channels lie side by side.
        levels = [level.contiguous(memory_format=torch.channels_last) for level in levels]
        layers = zip(levels, self.project, self.resample, self.narrow, strict=True)
        narrow = [thin(resample(project(level))) for level, project, resample, thin in layers]
        fused: Tensor | None = None
        for number in (3, 2, 1, 0):
            finer = narrow[number - 1].shape[-2:] if number else [2 * side for side in narrow[0].shape[-2:]]
            fused = self.fuse[number](narrow[number], fused, tuple(finer))
        return upsample(self.predict(fused), size)


class _Fusion(nn.Module):
    """Add a level to what comes from the coarser ones, and bring the sum to the next finer grid."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lateral, self.refine = _Residual(width), _Residual(width)
        self.project = nn.Conv2d(width, width, 1)

    def forward(self, level: Tensor, coarser: Tensor | None, size: tuple[int, int]) -> Tensor:
        total = level if coarser is None else coarser + self.lateral(level)
        return self.project(upsample(self.refine(total), size))


class _Residual(nn.Module):
    """Two 3×3 convolutions, each after a ReLU, beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, values: Tensor) -> Tensor:
        return values + self.second(functional.relu(self.first(functional.relu(values))))


class DepthOutput(nn.Module):
    """A head whose one output becomes metres: sigmoid × largest depth."""

    def __init__(self, head: nn.Module, largest: float) -> None:
        """Put the sigmoid behind a head of one output."""
        super().__init__()
        self.head, self.largest = head, largest

    def forward(self, levels: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Return metres (B, 1, H, W) in float32."""
        return self.largest * torch.sigmoid(self.head(levels, size).float())
