"""Frozen features of the frames that probes read.

Shape letters: N frames, G global tokens, D width, h and w patch-grid size.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pixio_robot.common.errors import UserError
from pixio_robot.downstream.probes.scenes import LABEL_GRID
from pixio_robot.encoders import EncoderTokens, VisionEncoder
from pixio_robot.encoders.readouts import patch_and_cls, readout
from pixio_robot.images.preprocessing import frames_to_images

_BATCH = 32


class ProbeFeatures(NamedTuple):
    """What probes read of all frames.

    Attributes:
        tokens: float16 to save memory: global (N, G, D) and patch (N, h, w, D).
        pose_readout: Name of the readout from which positions and orientation are told.
    """

    tokens: EncoderTokens
    pose_readout: str = "flatten"

    def dense(self, rows: Tensor) -> Tensor:
        """Return patch tokens ⊕ mean class token (n, h, w, 2·D), as in arXiv 2512.15715 for dense tasks."""
        return patch_and_cls(self._some(rows)).permute(0, 2, 3, 1)

    def pose(self, rows: Tensor) -> Tensor:
        """Return what positions and orientation are read from, one row a frame."""
        return readout(self.pose_readout)(self._some(rows)).flatten(1)

    def _some(self, rows: Tensor) -> EncoderTokens:
        return EncoderTokens(self.tokens.global_tokens[rows].float(), self.tokens.patch_tokens[rows].float())


def check_probed(encoder: VisionEncoder, image_size: int) -> None:
    """Refuse an encoder that cannot be probed.

    Raises:
        UserError: Its patch grid for frames of `image_size` px does not divide the label grid.
    """
    h, w = encoder.grid(image_size, image_size)
    if LABEL_GRID % h or LABEL_GRID % w:
        raise UserError(
            f"{encoder.config.name} has {h}×{w} patches, which do not divide the label grid of {LABEL_GRID}×{LABEL_GRID}: "
            f"set its image_size to a power of two."
        )


def probe_tokens(encoder: VisionEncoder, frames_NHWC: Tensor, advance: Callable[[int], None]) -> EncoderTokens:
    """Encode all frames once.

    Args:
        encoder: Frozen.
        frames_NHWC: uint8.
        advance: Called with the number of frames of each batch.
    """
    parts: list[EncoderTokens] = []
    for frames_BHWC in frames_NHWC.split(_BATCH):
        parts.append(EncoderTokens(*(tokens.half() for tokens in encoder(frames_to_images(frames_BHWC)))))
        advance(len(frames_BHWC))
    return EncoderTokens(*(torch.cat(some) for some in zip(*parts, strict=True)))
