"""What the training of a head minimises: SiLog for depth, cross-entropy for classes.

Shape letters: B images, K classes, H and W pixels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from pixio_robot.common.storage.files import atomic_path
from pixio_robot.downstream.dense.batches import DenseBatch
from pixio_robot.downstream.dense.data.sets import IGNORED, Kind
from pixio_robot.engine.objective import Batch

HEAD_FILE = "head.safetensors"
_TINY = 1e-6  # metres; keeps logarithms finite


def silog(predicted_B1HW: Tensor, depth_BHW: Tensor, valid_BHW: Tensor) -> Tensor:
    """Return √(mean d² − ½ mean(d)²) over valid pixels, d the difference of logarithms (D. Eigen et al. 2014).

    Args:
        predicted_B1HW: Metres.
        depth_BHW: Metres; anything where it is not valid.
        valid_BHW: Which pixels count; where none does, the loss is zero.
    """
    predicted = predicted_B1HW.float()[:, 0][valid_BHW].clamp_min(_TINY)
    if not len(predicted):
        return predicted_B1HW.float().sum() * 0
    difference = predicted.log() - depth_BHW[valid_BHW].log()
    return (difference.square().mean() - 0.5 * difference.mean().square()).clamp_min(_TINY**2).sqrt()


def cross_entropy(scores_BKHW: Tensor, labels_BHW: Tensor) -> Tensor:
    """Return the mean cross-entropy over the pixels whose label is not `IGNORED`; where there is none, zero.

    Args:
        scores_BKHW: Logits.
        labels_BHW: uint8.
    """
    labels_BHW = labels_BHW.long()
    counted = (labels_BHW != IGNORED).sum()
    total = functional.cross_entropy(scores_BKHW.float(), labels_BHW, ignore_index=IGNORED, reduction="sum")
    return total / torch.clamp(counted, min=1)


class DenseObjective:
    """SiLog of metres, or cross-entropy of classes, over the pixels that count."""

    phase, unit = "head", "images"

    def __init__(
        self,
        module: nn.Module,
        kind: Kind,
        depth_range: tuple[float, float],
        device: torch.device,
        identity: dict[str, Any],
    ) -> None:
        """Put the head on its device.

        Args:
            module: Levels and size → metres (B, 1, H, W), or scores of classes (B, K, H, W).
            kind: Which.
            depth_range: Metres that are valid.
            device: Where it computes.
            identity: Plain values that a resumed training must share.
        """
        self.module = module.to(device)
        self._kind, self._range, self._device, self._identity = kind, depth_range, device, identity

    def begin_step(self, step: int) -> None:
        """Nothing changes from step to step."""
        del step

    def parts(self, batch: Batch[DenseBatch]) -> Sequence[DenseBatch]:
        """Return the batch on the device."""
        levels = [level.to(self._device, non_blocking=True) for level in batch.data.levels]
        return [DenseBatch(levels, batch.data.truth.to(self._device, non_blocking=True))]

    def weights(self, part: DenseBatch) -> Sequence[float]:
        """Return the number of images."""
        return [float(len(part.truth))]

    def loss(self, module: nn.Module, part: DenseBatch) -> Tensor:
        """Return the loss (1,)."""
        height, width = part.truth.shape[-2:]
        predicted = module(part.levels, (height, width))
        if self._kind == "segmentation":
            return cross_entropy(predicted, part.truth)[None]
        low, high = self._range
        return silog(predicted, part.truth, (part.truth >= low) & (part.truth <= high))[None]

    def identity(self) -> dict[str, Any]:
        """Return what a resumed training must share."""
        return self._identity

    def save(self, folder: Path) -> None:
        """Write the head."""
        save_head(self.module, folder / HEAD_FILE)


def save_head(head: nn.Module, file: Path) -> None:
    """Write the weights of a head."""
    with atomic_path(file) as unfinished:
        save_file({name: value.contiguous() for name, value in head.state_dict().items()}, unfinished)
