"""Training batches of heads, each a function of seed and step alone: crops, mirror images and other scales.

Shape letters: B images, H and W pixels, S side of a crop.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pixio_robot.downstream.dense.data.sets import IGNORED, DenseSet, Kind, check_crop
from pixio_robot.downstream.dense.features import Features, FrozenEncoder
from pixio_robot.engine.objective import Batch
from pixio_robot.images.preprocessing import frames_to_images
from pixio_robot.pretraining.batches import CROPS, ahead, generator_for, image_indices


class DenseBatch(NamedTuple):
    """Features and truth of the crops of a step."""

    levels: list[Tensor]
    """(B, C, h, w) each."""
    truth: Tensor
    """(B, S, S): metres, or classes in uint8."""


@dataclass(frozen=True)
class DenseBatches:
    """Batches of a training.

    Attributes:
        images: To train on.
        encoder: What computes features that are not kept.
        kept: Features that are.
        kind: Images of segmentation may be scaled and padded, those of depth are cropped as they are.
        crop: Side of crops in pixels.
        batch_size: Images of a step.
        flip: Whether half of all images are mirrored.
        scale: Range of the factor on the sides of images; None for none.
        last_only: Whether only the last level is wanted.
        seed: Decides order and crops.
    """

    images: DenseSet
    encoder: FrozenEncoder
    kept: Features | None
    kind: Kind
    crop: int
    batch_size: int
    flip: bool
    scale: tuple[float, float] | None
    last_only: bool
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Return how many whole batches the images give, at least one."""
        return max(1, len(self.images) // self.batch_size)

    def from_step(self, first: int, last: int) -> Generator[Batch[DenseBatch]]:
        """Yield the batches of steps first…last-1; a thread reads and encodes those to come."""
        yield from ahead(self.batch, first, last)

    def batch(self, step: int) -> Batch[DenseBatch]:
        """Return the batch of a step.

        Raises:
            UserError: A file cannot be read, or an image is smaller than a crop.
        """
        rows = image_indices(self.seed, step, self.batch_size, len(self.images))
        generator = generator_for(self.seed, CROPS, step)
        mirrored = [bool(drawn < 0.5) and self.flip for drawn in torch.rand(len(rows), generator=generator)]
        drawn_B3 = torch.rand(len(rows), 3, generator=generator).tolist()
        if self.kept is not None:
            truth = np.stack([_mirror(self.images.truth(row), flip) for row, flip in zip(rows, mirrored, strict=True)])
            levels = self.kept.levels(rows, mirrored, -1 if self.last_only else 0)
        else:
            crops = [self._cut(row, *draws) for row, draws in zip(rows, drawn_B3, strict=True)]
            frames, truths = (
                np.stack([_mirror(crop[part], flip) for crop, flip in zip(crops, mirrored, strict=True)])
                for part in range(2)
            )
            levels, truth = self.encoder.levels(frames_to_images(torch.from_numpy(frames))), truths
            levels = levels[-1:] if self.last_only else levels
        names = [self.images.names[row] for row in rows]
        return Batch(step, DenseBatch(levels, torch.from_numpy(truth)), names)

    def _cut(self, row: int, size: float, top: float, left: float) -> tuple[np.ndarray, np.ndarray]:
        """Return a crop of an image and of its truth, from draws in [0, 1)."""
        image, truth = self.images.image(row), self.images.truth(row)
        if self.kind == "segmentation":
            if self.scale is not None:
                factor = self.scale[0] + size * (self.scale[1] - self.scale[0])
                image, truth = _resized(image, truth, factor)
            beyond = [(0, max(self.crop - side, 0)) for side in truth.shape]
            image = np.pad(image, [*beyond, (0, 0)])
            truth = np.pad(truth, beyond, constant_values=IGNORED)
        check_crop(image, self.images.names[row], self.crop)
        begins = [int(draw * (side - self.crop + 1)) for draw, side in zip((top, left), truth.shape, strict=True)]
        window = tuple(slice(begin, begin + self.crop) for begin in begins)
        return image[window], truth[window]


def _mirror(values: np.ndarray, mirrored: bool) -> np.ndarray:
    return values[:, ::-1].copy() if mirrored else values


def _resized(image: np.ndarray, classes: np.ndarray, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Resize an image (bilinear) and its classes (nearest); the longer side gets the factor, rounded down to pixels."""
    height, width = classes.shape
    longer = max(1, int(max(height, width) * factor))
    size = [max(1, round(side * longer / max(height, width))) for side in (width, height)]
    modes: Sequence[Image.Resampling] = (Image.Resampling.BILINEAR, Image.Resampling.NEAREST)
    resized = [
        np.array(Image.fromarray(values).resize((size[0], size[1]), mode))
        for values, mode in zip((image, classes), modes, strict=True)
    ]
    return resized[0], resized[1]
