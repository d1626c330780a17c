"""Frames of a dataset resized as policies resize theirs."""

from collections.abc import Iterable

import numpy as np
import torch

from pixio_robot.images.preprocessing import ImagePreprocessor, frames_to_images

_FRAMES_AT_ONCE = 128


def fit_frames(batches: Iterable[torch.Tensor], image_size: int | None) -> np.ndarray:
    """Join batches of frames, uint8 (B, H, W, 3), resized to squares of so many pixels; None keeps their size."""
    size = None if image_size is None else (image_size, image_size)
    resize = ImagePreprocessor(mean=(0.0,) * 3, std=(1.0,) * 3, image_size=size)
    fitted = []
    for frames in batches:
        if size is not None and frames.shape[1:3] != size:
            frames = (resize(frames_to_images(frames)) * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
        fitted.append(frames.numpy())
    return np.concatenate(fitted)


def fit_episode(frames: np.ndarray, image_size: int | None) -> np.ndarray:
    """Resize the frames of an episode, uint8 (steps, H, W, 3), a batch at a time; None keeps their size."""
    if image_size is None or frames.shape[1:3] == (image_size, image_size):
        return frames
    starts = range(0, len(frames), _FRAMES_AT_ONCE)
    return fit_frames((torch.from_numpy(frames[start : start + _FRAMES_AT_ONCE]) for start in starts), image_size)
