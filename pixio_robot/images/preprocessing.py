"""Resize and normalisation of camera frames: the one preprocessing of training, evaluation and export.

Shape letters: B batch, C channels, H and W image height and width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def frames_to_images(frames_BHWC: Tensor) -> Tensor:
    """Turn camera frames, uint8 (B, H, W, 3), into float32 images (B, 3, H, W) in [0, 1]."""
    return frames_BHWC.permute(0, 3, 1, 2).contiguous().to(torch.float32) / 255


class ImagePreprocessor(nn.Module):
    """Resize images in [0, 1] to the encoder's size and normalise them.

    The resize is bilinear with antialiasing and is skipped when the size already fits.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], image_size: tuple[int, int] | None = None) -> None:
        """Create the preprocessor.

        Args:
            mean: Per-channel mean on the [0, 1] scale.
            std: Per-channel standard deviation on the [0, 1] scale.
            image_size: Height and width in pixels, or None to keep the images' own size.
        """
        super().__init__()
        self.image_size = image_size
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return normalised images (B, 3, H', W') for images in [0, 1]."""
        if self.image_size is not None and tuple(images_BCHW.shape[-2:]) != self.image_size:
            images_BCHW = functional.interpolate(
                images_BCHW, size=self.image_size, mode="bilinear", antialias=True, align_corners=False
            )
        return (images_BCHW - self.mean) / self.std
