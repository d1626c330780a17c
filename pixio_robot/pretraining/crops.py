"""Where crops are cut: on a CPU one by one, on a GPU all of a batch at once, out of frames in its own memory where they fit."""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from pixio_robot.images.augment import crop_and_resize
from pixio_robot.images.config import Filter
from pixio_robot.images.resampling import crop_together
from pixio_robot.pretraining.config import TrainingConfig
from pixio_robot.pretraining.sources import ImageCache, ImageSource

log = logging.getLogger(__name__)

_COPIED_TOGETHER = 4096  # frames
_SHARE = 3  # frames may take one part in so many of a device's free memory


class Cutter:
    """Cuts boxes out of the frames of a source and resizes them.

    The loader's thread calls it, ahead of the steps. What it does on a device is queued behind the steps before it, and nothing
    waits for it.
    """

    def __init__(self, config: TrainingConfig, source: ImageSource, device: torch.device) -> None:
        """Copy the frames of a cache to the device, where they are to be cut there and fit.

        Args:
            config: `crops`, `crop_filter` and `image_size` count.
            source: Where frames come from.
            device: Where the crops shall be; on a CPU everything stays where it is. Frames that do not fit are sent there
                with every batch.
        """
        self._size, self._device = config.image_size, device
        self._kind: Filter = config.crop_filter
        self._together = config.crops == "device" or (config.crops == "auto" and device.type != "cpu")
        self._resident: Tensor | None = None
        self._pool = ThreadPoolExecutor(os.cpu_count()) if device.type != "cpu" else None
        if isinstance(source, ImageCache):
            self._cache = source
            if self._together and device.type != "cpu":
                self._resident = _on_device(source, device)

    def of_cache(self, indices: list[int], boxes_B4: Tensor) -> Tensor:
        """Return crops of a cache's frames, uint8 (B, C, size, size), on the device where they are cut there."""
        if self._resident is not None:
            frames_BHWC = self._resident[self._sent(torch.tensor(indices))]
            return crop_together(frames_BHWC, self._sent(boxes_B4), self._size, self._kind)
        return self(self._cache.read(indices), boxes_B4)

    def __call__(self, frames: Sequence[Tensor] | Tensor, boxes_B4: Tensor) -> Tensor:
        """Return crops of frames (H, W, C): uint8 (B, C, size, size), on the device where they are cut there."""
        if self._together and len({frame.shape for frame in frames}) == 1:
            frames_BHWC = frames if isinstance(frames, Tensor) else torch.stack(list(frames))
            return crop_together(self._sent(frames_BHWC), self._sent(boxes_B4), self._size, self._kind)
        if self._pool is None:
            return crop_and_resize(frames, boxes_B4, self._size, self._kind)
        share = -(-len(boxes_B4) // (os.cpu_count() or 1))
        parts = [slice(first, first + share) for first in range(0, len(boxes_B4), share)]
        cut = self._pool.map(lambda part: crop_and_resize(frames[part], boxes_B4[part], self._size, self._kind), parts)
        return self._sent(torch.cat(list(cut)))

    def _sent(self, tensor: Tensor) -> Tensor:
        return sent(tensor, self._device)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device without waiting, by way of pinned memory."""
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def _on_device(cache: ImageCache, device: torch.device) -> Tensor | None:
    """Copy all frames to a GPU; None where they would leave too little for the training."""
    needed, (free, _) = len(cache) * cache.side**2 * 3, torch.cuda.mem_get_info(device)
    if _SHARE * needed > free:
        log.warning(
            "the %d frames take %.1f GB, more than a third of the %.1f GB that are free on %s: they are sent with every "
            "batch (a smaller images.side would fit)",
            *(len(cache), needed / 1e9, free / 1e9, device),
        )
        return None
    frames_NHWC = torch.empty(len(cache), cache.side, cache.side, 3, dtype=torch.uint8, device=device)
    for first in range(0, len(cache), _COPIED_TOGETHER):
        some = range(first, min(first + _COPIED_TOGETHER, len(cache)))
        frames_NHWC[first : first + len(some)] = cache.read(list(some)).to(device)
    return frames_NHWC
