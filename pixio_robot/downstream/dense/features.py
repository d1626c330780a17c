"""Frozen features of images: computed once and kept where they fit, as float16 on the disk.

    <folder>/<digest>/<level>-patches.npy <level>-mean.npy

Shape letters: B and N images, C channels, D width, h and w patch grid, H and W pixels.
"""

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from pixio_robot.common.errors import UserError
from pixio_robot.common.progress import progress_bar
from pixio_robot.common.storage.kept import kept_folder, new_array
from pixio_robot.downstream.dense.data.sets import DenseSet
from pixio_robot.downstream.task import build_encoder
from pixio_robot.encoders import EncoderConfig, EncoderTokens
from pixio_robot.encoders.checkpoints import tensors_hash
from pixio_robot.encoders.readouts import patch_and_cls
from pixio_robot.encoders.torchscript import TORCHSCRIPT
from pixio_robot.images.preprocessing import frames_to_images

LEVELS = 4
"""Levels that DPT reads."""
BATCH = 32
"""Images encoded together."""


@dataclass(frozen=True)
class FrozenEncoder:
    """What heads stand on.

    Attributes:
        encode: Images in [0, 1] (B, 3, H, W) → tokens of the levels, the last block's last.
        colour: Of what lies beyond an image, in [0, 1]: zero once it is normalised.
        key: What its features depend on but for the images.
        device: Where it computes.
        precision: Of its forward passes.
    """

    encode: Callable[[Tensor], Sequence[EncoderTokens]]
    colour: Tensor
    key: str
    device: torch.device
    precision: str = "float32"

    def tokens(self, images_BCHW: Tensor) -> list[EncoderTokens]:
        """Return per level the patch tokens and the mean class token as the one global token."""
        reduced = self.precision != "float32"
        with torch.no_grad(), torch.autocast(self.device.type, getattr(torch, self.precision), enabled=reduced):
            levels = self.encode(images_BCHW.to(self.device))
        return [EncoderTokens(level.global_tokens.mean(dim=1, keepdim=True), level.patch_tokens) for level in levels]

    def levels(self, images_BCHW: Tensor) -> list[Tensor]:
        """Return per level patch tokens ⊕ mean class token (B, 2·D, h, w)."""
        return [patch_and_cls(tokens) for tokens in self.tokens(images_BCHW)]


def frozen_encoder(config: EncoderConfig, levels: int, device: torch.device, precision: str) -> FrozenEncoder:
    """Build an encoder that gives so many levels; one that has its output alone, as a TorchScript file, gives that.

    Raises:
        UserError: See `VisionEncoder`.
    """
    encoder = build_encoder(config).to(device)

    def encode(images_BCHW: Tensor) -> Sequence[EncoderTokens]:
        return [encoder(images_BCHW)] if config.name == TORCHSCRIPT else encoder.intermediate(images_BCHW, levels)

    given = 1 if config.name == TORCHSCRIPT else levels
    weights = tensors_hash(encoder.backbone.state_dict())
    key = f"{config.name}-{weights}-{config.image_size}-{given}-{precision}"
    return FrozenEncoder(encode, encoder.preprocess.mean.flatten().cpu(), key, device, precision)


class Features:
    """Features of the images of a set, with those of their mirror images."""

    def __init__(self, kept: Sequence[Sequence[tuple[np.ndarray, np.ndarray]]], device: torch.device) -> None:
        """Wrap what is kept.

        Args:
            kept: For images and, where there are any, mirror images: per level patch tokens (N, h, w, D) and mean class
                token (N, D).
            device: Where features go.
        """
        self._kept, self._device = kept, device

    def levels(self, rows: Sequence[int], mirrored: Sequence[bool], first: int = 0) -> list[Tensor]:
        """Return per level (B, 2·D, h, w) in float32.

        Args:
            rows: Numbers of the images.
            mirrored: Which of them are mirrored.
            first: Level to begin with; -1 gives the last one alone.
        """
        levels = []
        for level in range(len(self._kept[0]))[first:]:
            values = []
            for part in range(2):
                found = [self._kept[mirror][level][part][row] for row, mirror in zip(rows, mirrored, strict=True)]
                values.append(torch.from_numpy(np.stack(found)).to(self._device).float())
            levels.append(patch_and_cls(EncoderTokens(values[1][:, None], values[0])))
        return levels


def keep_features(
    encoder: FrozenEncoder, images: DenseSet, crop: int, *, mirrored: bool, limit: float, folder: Path, console: Console
) -> Features | None:
    """Return the features of all images, computed where they are not there yet; None where they are not to be kept.

    Args:
        encoder: What computes them.
        images: All of one size.
        crop: Side of crops and windows; only where images are just that is there anything to keep.
        mirrored: Whether mirror images are wanted, too.
        limit: Bytes beyond which nothing is kept.
        folder: Where features are kept.
        console: Where progress is shown.

    Raises:
        UserError: They are too large for float16.
    """
    if images.key is None or images.side != crop:
        return None
    example = encoder.tokens(_images(images, [0], mirrored=False))
    size = 2 * sum(level.patch_tokens.numel() + level.global_tokens.numel() for level in example)
    if size * len(images) * (1 + mirrored) > limit:
        return None
    kept = []
    for mirror in (False, True)[: 1 + mirrored]:
        digest = hashlib.blake2b(f"{encoder.key} {images.key} {mirror}".encode(), digest_size=8).hexdigest()
        compute = functools.partial(_compute, encoder, images, mirror, example, console)
        place = kept_folder(folder / digest, compute)
        kept.append(
            [
                (
                    np.load(place / f"{level}-patches.npy", mmap_mode="r"),
                    np.load(place / f"{level}-mean.npy", mmap_mode="r"),
                )
                for level in range(len(example))
            ]
        )
    return Features(kept, encoder.device)


def _compute(
    encoder: FrozenEncoder,
    images: DenseSet,
    mirror: bool,
    example: Sequence[EncoderTokens],
    console: Console,
    place: Path,
) -> None:
    count = len(images)
    opened = [
        tuple(
            new_array(place / f"{number}-{name}.npy", np.float16, (count, *shape))
            for name, shape in (("patches", level.patch_tokens.shape[1:]), ("mean", level.patch_tokens.shape[-1:]))
        )
        for number, level in enumerate(example)
    ]
    with progress_bar("mirror images" if mirror else "features", -(-count // BATCH), console) as advance:
        for first in range(0, count, BATCH):
            rows = range(first, min(first + BATCH, count))
            tokens = encoder.tokens(_images(images, rows, mirrored=mirror))
            for (patches, means), level in zip(opened, tokens, strict=True):
                for array, values in ((patches, level.patch_tokens), (means, level.global_tokens[:, 0])):
                    half = values.half().cpu()
                    if not bool(half.isfinite().all()):
                        raise UserError("Features are too large to be kept in float16: set dense.cache_gib=0.0.")
                    array[rows.start : rows.stop] = half.numpy()
            advance()
    for arrays in opened:
        for array in arrays:
            array.flush()


def _images(images: DenseSet, rows: Sequence[int], *, mirrored: bool) -> Tensor:
    frames_BHWC = torch.from_numpy(np.stack([images.image(row) for row in rows]))
    return frames_to_images(frames_BHWC.flip(2) if mirrored else frames_BHWC)
