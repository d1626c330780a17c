"""Weights of a pretrained autoencoder: two safetensors files that say what they are."""

import logging
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError, safe_open
from timm.layers.attention import Attention
from torch import nn

from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.common.storage.files import atomic_path
from pixio_robot.common.storage.tensors import load_tensors, save_tensors
from pixio_robot.encoders import PRETRAINABLE, PixioVisionTransformer, load_encoder_weights
from pixio_robot.encoders.checkpoints import fill
from pixio_robot.engine.sharding import whole
from pixio_robot.pretraining.model.mae import PixioMAE

log = logging.getLogger(__name__)

ENCODER_FILE = "encoder.safetensors"  # in the folder of a finished run
_DECODER_FIELDS = ("decoder_dim", "decoder_depth", "decoder_heads", "mask_block")


def create_encoder(variant: str, image_size: int, drop_path: float = 0.0) -> PixioVisionTransformer:
    """Build a Pixio encoder whose position embedding fits square images of `image_size` px.

    Args:
        variant: timm name of the encoder.
        image_size: Side of the images in pixels.
        drop_path: Stochastic depth of the last block.

    Raises:
        UserError: The variant is unknown, or the size is not divisible by the patch.
    """
    if variant not in PRETRAINABLE:
        raise UserError(
            f"Only Pixio encoders can be pretrained, {variant!r} is none. {nearest_name(variant, PRETRAINABLE)}"
        )
    if image_size % 16:
        raise UserError(f"Images of {image_size} px cannot be cut into patches of 16: choose a multiple of 16.")
    encoder = timm.create_model(variant, img_size=image_size, drop_path_rate=drop_path)
    assert isinstance(encoder, PixioVisionTransformer)
    return encoder


def save_encoder(
    encoder: PixioVisionTransformer,
    variant: str,
    folder: Path,
    dtype: torch.dtype = torch.float32,
    write: bool = True,
) -> dict[str, str]:
    """Write `encoder.safetensors` (timm's keys), with metadata that rebuild it.

    Args:
        encoder: Whole, or sharded: then all processes call this together.
        variant: timm name of the encoder.
        folder: Existing folder; the file is replaced at once.
        dtype: Type of the stored weights.
        write: Whether this process writes the file.

    Returns:
        The metadata.
    """
    attention = [layer for layer in encoder.modules() if isinstance(layer, Attention)]
    metadata = {
        "variant": variant,
        "image_size": str(16 * encoder.patch_embed.grid_size[0]),
        "patch_size": str(encoder.patch_embed.patch_size[0]),
        "embed_dim": str(encoder.embed_dim),
        "depth": str(len(attention)),
        "num_heads": str(attention[0].num_heads),
        "class_tokens": str(encoder.num_prefix_tokens),
    }
    _save(encoder, folder / ENCODER_FILE, metadata, dtype, write)
    return metadata


def save_mae(mae: PixioMAE, variant: str, folder: Path, dtype: torch.dtype = torch.float32, write: bool = True) -> None:
    """Write the encoder (see `save_encoder`) and beside it `decoder.safetensors`, with metadata that rebuild both."""
    decoder = mae.decoder
    attention = [layer for layer in decoder.modules() if isinstance(layer, Attention)]
    metadata = save_encoder(mae.encoder, variant, folder, dtype, write) | {
        "decoder_dim": str(decoder.embed.out_features),
        "decoder_depth": str(len(attention)),
        "decoder_heads": str(attention[0].num_heads),
        "mask_ratio": str(mae.mask_ratio),
        "mask_block": str(mae.mask_block),
    }
    _save(decoder, folder / "decoder.safetensors", metadata, dtype, write)


def _save(module: nn.Module, file: Path, metadata: dict[str, str], dtype: torch.dtype, write: bool) -> None:
    tensors = {}
    for key, value in module.state_dict().items():
        value = whole(value.detach())
        if write:
            tensors[key] = value.to("cpu", dtype).contiguous()
    if write:
        with atomic_path(file) as unfinished:
            save_tensors(tensors, unfinished, metadata)


def load_mae(variant: str, encoder_file: Path, decoder_file: Path) -> PixioMAE:
    """Rebuild an autoencoder from the two files of `save_mae`, in float32 and evaluation mode.

    Args:
        variant: timm name of the encoder, for instance `pixio_tiny16`.
        encoder_file: Weights of the encoder.
        decoder_file: Weights of the decoder; its metadata give shape and mask.

    Raises:
        UserError: A file is missing, unreadable, or belongs to another variant.
    """
    metadata = _decoder_metadata(decoder_file, variant)
    encoder = create_encoder(variant, int(metadata["image_size"]))
    load_encoder_weights(encoder, encoder_file, variant)
    mae = PixioMAE(
        encoder,
        mask_ratio=float(metadata["mask_ratio"]),
        **{field: int(metadata[field]) for field in _DECODER_FIELDS},
    )
    mae.decoder.load_state_dict(load_tensors(decoder_file))
    return mae.eval()


def start_decoder(mae: PixioMAE, variant: str, start_from: Path) -> None:
    """Load the decoder that was pretrained with an encoder, where it lies beside it and has this autoencoder's shape.

    Otherwise the decoder stays as it is, which costs a continued pretraining its first some hundred steps; a warning
    says so.

    Args:
        mae: Its decoder is filled in.
        variant: timm name of the encoder.
        start_from: The encoder's weights: `decoder.safetensors` stands beside `encoder.safetensors`, and
            `<name>_decoder.safetensors` beside any other `<name>.safetensors`.

    Raises:
        UserError: The decoder's file is unreadable or belongs to another variant.
    """
    folder, stem = (start_from, "encoder") if start_from.is_dir() else (start_from.parent, start_from.stem)
    decoder_file = folder / ("decoder.safetensors" if stem == "encoder" else f"{stem}_decoder.safetensors")
    if not decoder_file.exists():
        log.warning("the decoder starts afresh: there is no %s", decoder_file)
        return
    _decoder_metadata(decoder_file, variant)
    weights = load_tensors(decoder_file)
    shapes = {key: value.shape for key, value in mae.decoder.state_dict().items()}
    if {key: value.shape for key, value in weights.items()} != shapes:
        log.warning("the decoder starts afresh: %s has another shape than these settings", decoder_file)
        return
    fill(mae.decoder, weights)


def _decoder_metadata(decoder_file: Path, variant: str) -> dict[str, str]:
    """Return what a decoder's file says of itself; see `load_mae`."""
    try:
        with safe_open(decoder_file, "pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{decoder_file} cannot be read as decoder weights ({error}); expected the decoder.safetensors "
            "that pretraining writes beside encoder.safetensors."
        ) from error
    if metadata.get("variant") != variant or not set(_DECODER_FIELDS) <= metadata.keys():
        raise UserError(
            f"{decoder_file} is a decoder of {metadata.get('variant', 'no known encoder')}, not of {variant}: "
            "give encoder and decoder files of one pretraining run."
        )
    return metadata
