"""Scores images for self-curation: reconstruction loss, colour entropy and size, one table beside every shard."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import batched
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from PIL import Image
from torch import Tensor

from pixio_robot.common.errors import UserError
from pixio_robot.common.storage.files import atomic_path
from pixio_robot.encoders.pixio import WEIGHTS_FOLDER
from pixio_robot.images.decoding import decode
from pixio_robot.images.patches import patch_statistics, patchify, take_patches
from pixio_robot.images.preprocessing import frames_to_images, normalise
from pixio_robot.pretraining.batches import generator_for
from pixio_robot.pretraining.model.mae import PixioMAE
from pixio_robot.pretraining.model.masking import block_mask, split_patches
from pixio_robot.pretraining.model.weights import load_mae
from pixio_robot.pretraining.sources.curation import colour_entropy, scores_file
from pixio_robot.pretraining.sources.grouped import Item
from pixio_robot.pretraining.sources.shards import find_shards, is_local, read_shard

_MASKS = 1000  # stream of random numbers
_MADE_BY = b"pixio_robot.made_by"  # key in the tables' metadata
_SCHEMA = pyarrow.schema(
    [
        ("name", pyarrow.string()),
        ("loss", pyarrow.float32()),
        ("entropy", pyarrow.float32()),
        ("width", pyarrow.int32()),
        ("height", pyarrow.int32()),
    ]
)


class _Decoded(NamedTuple):
    row: dict[str, Any]
    pixels_HWC: np.ndarray | None


class Judge(NamedTuple):
    """An autoencoder that scores images, at the size it was trained on.

    Attributes:
        mae: In evaluation mode.
        image_size: Side of its images in pixels.
        name: What it is: tables of one name have comparable losses.
    """

    mae: PixioMAE
    image_size: int
    name: str


def load_judge(variant: str, encoder: str | None = None, decoder: str | None = None, device: str = "cpu") -> Judge:
    """Load the autoencoder that scores.

    Args:
        variant: timm name of the encoder.
        encoder: Weights of a run on the raw images; None takes what ships with the package.
        decoder: The decoder of the same run.
        device: torch device.

    Raises:
        UserError: Only one of the files is given, or the weights are missing or do not fit each other.
    """
    if (encoder is None) != (decoder is None):
        raise UserError("Give encoder=… and decoder=… of one pretraining run, or neither.")
    encoder_file = Path(encoder) if encoder else WEIGHTS_FOLDER / f"{variant}.safetensors"
    decoder_file = Path(decoder) if decoder else WEIGHTS_FOLDER / f"{variant}_decoder.safetensors"
    mae = load_mae(variant, encoder_file, decoder_file).to(device)
    digest = hashlib.sha256(encoder_file.read_bytes() + decoder_file.read_bytes()).hexdigest()[:16]
    return Judge(mae, mae.patch * mae.encoder.patch_embed.grid_size[0], f"{variant} {digest}")


def draw_masks(mae: PixioMAE, image_size: int, count: int, seed: int) -> Tensor:
    """Draw the masks that every image is scored with, bool (count, patches)."""
    side = image_size // mae.patch
    generator = generator_for(seed, _MASKS, 0)
    return block_mask(count, (side, side), mae.mask_ratio, mae.mask_block, generator)


@torch.no_grad()
def image_losses(mae: PixioMAE, images_BHWC: Tensor, masks_KN: Tensor) -> Tensor:
    """Return the reconstruction loss of each image, mean over masks and masked patches: (B,).

    Args:
        mae: In evaluation mode.
        images_BHWC: uint8 frames.
        masks_KN: Masks, the same for every image, so that a loss does not depend on the other images.
    """
    device = mae.decoder.mask_token.device
    images_BCHW = normalise(frames_to_images(images_BHWC).to(device))
    patches_BNX = patchify(images_BCHW, mae.patch)
    losses_KB = []
    for mask_N in masks_KN:
        mask_BN = mask_N.expand(len(images_BCHW), -1)
        prediction_BMX = mae(images_BCHW, mask_BN=mask_BN).prediction_BMX
        _, masked_BM = split_patches(mask_BN)
        target_BMX = take_patches(patches_BNX, masked_BM.to(device))
        mean, deviation = patch_statistics(target_BMX)
        losses_KB.append(((prediction_BMX - (target_BMX - mean) / deviation) ** 2).mean(dim=(1, 2)))
    return torch.stack(losses_KB).mean(dim=0).cpu()


def score_shards(
    path: str | Sequence[str],
    judge: Judge,
    masks: int = 4,
    seed: int = 0,
    batch_size: int = 64,
    scores: str | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """Write the scores of every shard that has none yet: parquet with name, loss, entropy, width, height.

    A table exists whole or not at all, so an interrupted scoring goes on with the first shard that lacks one. Images
    are squashed to squares for the loss, so that all of the image counts; entropy and size are of the image as it is.
    An image that cannot be decoded has a row without numbers.

    Args:
        path: See `find_shards`.
        judge: Computes the losses.
        masks: Masks per image; the loss is the mean over them.
        seed: Seed of the masks.
        batch_size: Images at once.
        scores: Folder of the tables; None puts each beside its shard, which must then be a local file.
        report: Called with the number of shards done and their total.

    Returns:
        Names of the images that could not be decoded.

    Raises:
        UserError: There are no shards, one cannot be read, a remote shard has no folder for its table, or there are
            tables of another judge or other masks.
    """
    shards = find_shards(path)
    folder_of_tables(shards, scores)
    masks_KN = draw_masks(judge.mae, judge.image_size, masks, seed)
    made_by = f"{judge.name}, {masks} masks of seed {seed}"
    damaged = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, shard in enumerate(shards):
            report(done, len(shards))
            file = scores_file(shard, scores)
            if file.exists():
                _check_made_by(file, made_by)
                rows = pyarrow.parquet.read_table(file, columns=["name", "width"]).to_pylist()
            else:
                rows = list(_score(read_shard(shard), judge, masks_KN, batch_size, pool))
                _write(rows, file, made_by)
            damaged += [f"{Path(shard).name}/{row['name']}" for row in rows if row["width"] is None]
    report(len(shards), len(shards))
    return damaged


def folder_of_tables(shards: Sequence[str], scores: str | None) -> Path:
    """Return the folder of the tables, of the first shard where each lies beside its own.

    Raises:
        UserError: A remote shard has no folder for its table.
    """
    if scores is None and not all(is_local(shard) for shard in shards):
        raise UserError("Scores of remote shards need a folder of their own: give it as scores=….")
    return Path(scores or Path(shards[0]).parent)


def _score(
    items: Iterator[Item], judge: Judge, masks_KN: Tensor, batch_size: int, pool: ThreadPoolExecutor
) -> Iterator[dict[str, Any]]:
    for some in batched(items, batch_size):
        decoded = list(pool.map(lambda item: _decode(item, judge.image_size), some))
        good = [(image.row, image.pixels_HWC) for image in decoded if image.pixels_HWC is not None]
        if good:
            frames_BHWC = torch.from_numpy(np.stack([pixels_HWC for _, pixels_HWC in good]))
            for (row, _), loss in zip(good, image_losses(judge.mae, frames_BHWC, masks_KN).tolist(), strict=True):
                row["loss"] = loss
        yield from (image.row for image in decoded)


def _decode(item: Item, side: int) -> _Decoded:
    row: dict[str, Any] = {"name": item.name, "loss": None, "entropy": None, "width": None, "height": None}
    assert not isinstance(item.content, np.ndarray)  # shards hold files
    image = item.content if isinstance(item.content, Exception) else decode(item.content)
    if isinstance(image, Exception):
        return _Decoded(row, None)
    row |= {"entropy": colour_entropy(np.asarray(image)), "width": image.width, "height": image.height}
    return _Decoded(row, np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, reducing_gap=3.0)))


def _check_made_by(file: Path, made_by: str) -> None:
    before = (pyarrow.parquet.read_schema(file).metadata or {}).get(_MADE_BY, b"something else").decode()
    if before != made_by:
        raise UserError(
            f"The scores {file} were made by {before}, not by {made_by}: delete them or give another scores=…."
        )


def _write(rows: list[dict[str, Any]], file: Path, made_by: str) -> None:
    table = pyarrow.Table.from_pylist(rows, _SCHEMA.with_metadata({_MADE_BY: made_by.encode()}))
    with atomic_path(file) as unfinished:
        pyarrow.parquet.write_table(table, unfinished)
