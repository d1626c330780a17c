"""Frozen features of the frames that probes read.

Shape letters: N frames, G global tokens, D width, h and w patch-grid size.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pixio_robot.common.errors import UserError
from pixio_robot.downstream.probes.scenes import LABEL_GRID, ProbeScenes
from pixio_robot.encoders import EncoderConfig, EncoderTokens, VisionEncoder
from pixio_robot.encoders.readouts import patch_and_cls, readout
from pixio_robot.images.patches import patchify
from pixio_robot.images.preprocessing import frames_to_images

PIXELS = "pixels"  # in place of an encoder's name: patches of raw pixels as tokens
_PIXELS_PATCH = 16
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


def check_probed(config: EncoderConfig, image_size: int) -> None:
    """Build an encoder and throw it away, so that a mistake is found before scenes are rendered and others probed.

    Raises:
        UserError: See `VisionEncoder`; or its patch grid for frames of `image_size` px does not divide the label grid.
    """
    encoder = None if config.name == PIXELS else VisionEncoder(config)
    h, w = (image_size // _PIXELS_PATCH,) * 2 if encoder is None else encoder.grid(image_size, image_size)
    if LABEL_GRID % h or LABEL_GRID % w:
        raise UserError(
            f"{config.name} has {h}×{w} patches, which do not divide the label grid of {LABEL_GRID}×{LABEL_GRID}: "
            f"set its image_size to a power of two."
        )


def probe_tokens(config: EncoderConfig, scenes: ProbeScenes, advance: Callable[[int], None]) -> EncoderTokens:
    """Encode all frames once.

    Args:
        config: Which encoder with which weights; the name `pixels` stands for raw pixels.
        scenes: Frames.
        advance: Called with the number of frames of each batch.

    Raises:
        UserError: See `VisionEncoder`.
    """
    encode = _pixel_tokens if config.name == PIXELS else VisionEncoder(config)
    parts: list[EncoderTokens] = []
    for frames_BHWC in scenes.frames_NHWC.split(_BATCH):
        parts.append(EncoderTokens(*(tokens.half() for tokens in encode(frames_to_images(frames_BHWC)))))
        advance(len(frames_BHWC))
    return EncoderTokens(*(torch.cat(some) for some in zip(*parts, strict=True)))


def _pixel_tokens(images_BCHW: Tensor) -> EncoderTokens:
    height, width = images_BCHW.shape[-2:]
    patches_BND = patchify(images_BCHW, _PIXELS_PATCH)
    grid = (height // _PIXELS_PATCH, width // _PIXELS_PATCH)
    return EncoderTokens(patches_BND.mean(dim=1, keepdim=True), patches_BND.unflatten(1, grid))
