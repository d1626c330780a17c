"""Resize and normalisation of camera frames: the one preprocessing of training, caches, evaluation and export.

Shape letters: B batch, C channels, H and W image height and width.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_FRAMES_AT_ONCE = 128  # of an episode that is resized


def frames_to_images(frames_BHWC: Tensor) -> Tensor:
    """Turn camera frames, uint8 (B, H, W, 3), into float32 images (B, 3, H, W) in [0, 1]."""
    return frames_BHWC.permute(0, 3, 1, 2).contiguous().to(torch.float32) / 255


def normalise(images_BCHW: Tensor) -> Tensor:
    """Normalise images in [0, 1] as Pixio encoders expect them."""
    mean, std = (
        torch.tensor(values, device=images_BCHW.device).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return (images_BCHW - mean) / std


def resize(images_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize images to a height and width in pixels, bilinearly with antialiasing."""
    return functional.interpolate(images_BCHW, size=size, mode="bilinear", antialias=True, align_corners=False)


class ImagePreprocessor(nn.Module):
    """Resize images in [0, 1] to the encoder's size, keeping their aspect, and normalise them.

    The resize is bilinear with antialiasing and is skipped when the size already fits. The longer side becomes `side`. The
    shorter one follows, to whole patches where the encoder takes any such size; else it is filled up to a square, half on
    each side, with what normalisation makes 0.
    """

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], side: int | None = None, patch: int | None = None
    ) -> None:
        """Create the preprocessor.

        Args:
            mean: Per-channel mean on the [0, 1] scale.
            std: Per-channel standard deviation on the [0, 1] scale.
            side: Longer side in pixels, or None to keep the images' own size.
            patch: Side of the patches of an encoder that takes any number of them; None gives squares.
        """
        super().__init__()
        self.side, self.patch = side, patch
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width to which images are resized, before they are filled up."""
        if self.side is None:
            return height, width
        shorter = min(height, width) * self.side / max(height, width)
        if height == width:
            return self.side, self.side
        unit = self.patch or 1
        shorter = max(round(shorter / unit), 1) * unit
        return (shorter, self.side) if height < width else (self.side, shorter)

    def seen(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of what the encoder sees of images of a size."""
        if self.side is None or self.patch is not None:
            return self.resized(height, width)
        return self.side, self.side

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return normalised images (B, 3, H', W') for images in [0, 1]."""
        given = (int(images_BCHW.shape[-2]), int(images_BCHW.shape[-1]))
        size, (height, width) = self.resized(*given), self.seen(*given)
        if size != given:
            images_BCHW = resize(images_BCHW, size)
        normalised_BCHW = (images_BCHW - self.mean) / self.std
        if size == (height, width):
            return normalised_BCHW
        above, left = (height - size[0]) // 2, (width - size[1]) // 2
        return functional.pad(normalised_BCHW, (left, width - size[1] - left, above, height - size[0] - above))


def fit_frames(batches: Iterable[torch.Tensor], image_size: int | None) -> np.ndarray:
    """Join batches of frames, uint8 (B, H, W, 3), resized to squares of so many pixels; None keeps their size."""
    size = None if image_size is None else (image_size, image_size)
    fitted = []
    for frames in batches:
        if size is not None and frames.shape[1:3] != size:
            frames = (
                (resize(frames_to_images(frames), size) * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
            )
        fitted.append(frames.numpy())
    return np.concatenate(fitted)


def fit_episode(frames: np.ndarray, image_size: int | None) -> np.ndarray:
    """Resize the frames of an episode, uint8 (steps, H, W, 3), a batch at a time; None keeps their size."""
    if image_size is None or frames.shape[1:3] == (image_size, image_size):
        return frames
    starts = range(0, len(frames), _FRAMES_AT_ONCE)
    return fit_frames((torch.from_numpy(frames[start : start + _FRAMES_AT_ONCE]) for start in starts), image_size)
