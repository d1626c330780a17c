"""Predictions for test images, and what they are worth.

Shape letters: B images, K outputs, H and W pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pixio_robot.downstream.dense.data.sets import DenseSet, Kind
from pixio_robot.downstream.dense.features import Features, FrozenEncoder
from pixio_robot.downstream.dense.metrics import Score
from pixio_robot.downstream.dense.windows import cut_windows, join_windows
from pixio_robot.images.preprocessing import frames_to_images
from pixio_robot.pretraining.batches import ahead

_BATCH = 32


@dataclass(frozen=True)
class DenseTest:
    """Images that a head is tested by.

    Attributes:
        images: With their truth.
        encoder: What computes features that are not kept.
        kept: Features that are; the images are then one window each.
        kind: What is predicted.
        window: Side of windows in pixels.
        stride: Pixels from one window to the next.
        precision: Of the head's forward passes.
        last_only: Whether only the last level is wanted.
    """

    images: DenseSet
    encoder: FrozenEncoder
    kept: Features | None
    kind: Kind
    window: int
    stride: int
    precision: str = "float32"
    last_only: bool = False

    def predictions(self, head: nn.Module, rows: range | None = None) -> Iterator[np.ndarray]:
        """Yield for each image metres, float32 (H, W), or classes, int64 (H, W)."""
        rows = range(len(self.images)) if rows is None else rows
        if self.kept is not None:
            for first in range(rows.start, rows.stop, _BATCH):
                some = range(first, min(first + _BATCH, rows.stop))
                levels = self.kept.levels(some, [False] * len(some), -1 if self.last_only else 0)
                yield from (self._result(values) for values in self._run(head, levels))
            return
        for size, windows in ahead(self._encoded, rows.start, rows.stop):
            values = torch.cat([self._run(head, levels) for levels in windows])
            yield self._result(join_windows(values, size, self.stride))

    def score(self, head: nn.Module, score: Score) -> np.ndarray:
        """Return what each image adds to a score, stacked."""
        found = [score.image(predicted, self.images.truth(row)) for row, predicted in enumerate(self.predictions(head))]
        return np.stack(found)

    def _encoded(self, row: int) -> tuple[tuple[int, int], list[list[Tensor]]]:
        """Return the size of an image and the features of its windows, some windows at a time."""
        image_3HW = frames_to_images(torch.from_numpy(self.images.image(row))[None])[0]
        windows = cut_windows(image_3HW, self.window, self.stride, self.encoder.colour)
        height, width = image_3HW.shape[-2:]
        return (height, width), [self.encoder.levels(some) for some in windows.split(_BATCH)]

    def _run(self, head: nn.Module, levels: list[Tensor]) -> Tensor:
        """Return what is averaged where windows overlap: metres (B, 1, H, W), or probabilities (B, K, H, W)."""
        device, reduced = levels[0].device.type, self.precision != "float32"
        with torch.no_grad(), torch.autocast(device, getattr(torch, self.precision), enabled=reduced):
            values = head(levels, (self.window, self.window)).float()
        return values if self.kind == "depth" else values.softmax(dim=1)

    def _result(self, values_KHW: Tensor) -> np.ndarray:
        best = values_KHW[0] if self.kind == "depth" else values_KHW.argmax(dim=0)
        return best.cpu().numpy()
