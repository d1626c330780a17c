"""Encoder weights for other people's code: timm's hub layout, or a checkpoint of transformers' Pixio."""

import importlib.util
import re
import shutil
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from torch import Tensor, nn

from pixio_robot.common.errors import UserError
from pixio_robot.common.storage.files import atomic_path, write_json
from pixio_robot.common.storage.tensors import save_tensors
from pixio_robot.encoders.backbones import build_backbone
from pixio_robot.encoders.pixio import PixioVisionTransformer

Format = Literal["timm", "transformers"]

# timm's names to those of the published transformers checkpoints, applied in order; queries, keys and values are split before.
_RENAMES = (
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^cls_token$", "embeddings.cls_token"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^norm\.", "layernorm."),
    (r"\.attn\.(query|key|value)\.", r".attention.attention.\1."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"^blocks\.", "encoder.layer."),
)
_TOLERANCE = 1e-5
CARD = "model_card.md"
"""The card of a run's weights, beside them or, of a checkpoint's, in the folder of the run."""


def export_weights(name: str, weights: str, form: Format, folder: Path) -> float | None:
    """Write an encoder's weights as a folder that timm or transformers loads, compared with ours before it is kept.

    `timm.create_model("local-dir:<folder>")` loads the one (Pixio's variants where this package is imported),
    `transformers.AutoModel.from_pretrained("<folder>")` the other; `encoder.weights=<folder>` both. The model card of
    the run that made the weights, where there is one, becomes the folder's README.md.

    Args:
        name: timm name of the encoder.
        weights: `pretrained`, `random`, or a weights file in any container (see `load_encoder_weights`).
        form: Whose layout.
        folder: To be written; must not exist.

    Returns:
        The largest difference of the features from ours, relative to the largest feature; None where what loads them is not
        installed.

    Raises:
        UserError: See `build_backbone`; the encoder is none of Pixio's and transformers' layout is asked for; something is at
            `folder`; the loaded model differs.
    """
    model: Any = build_backbone(name, weights).eval()
    with atomic_path(folder, overwrite=False) as unfinished:
        unfinished.mkdir()
        if form == "timm":
            _write_timm(name, model, unfinished)
        else:
            _write_transformers(name, model, unfinished)
        _copy_card(Path(weights), unfinished)
        difference = _difference(model, form, unfinished)
        if difference is not None and not difference <= _TOLERANCE:
            raise UserError(
                f"What {form} loads differs from {name} by {difference:.1e} of its largest feature: nothing is kept."
            )
    return difference


def _copy_card(weights: Path, folder: Path) -> None:
    """Put the card of a run's weights, where there is one, into a folder as the hub wants it, with its picture."""
    for place in (weights.parent, *weights.absolute().parents[2:3]):
        if weights.is_file() and (place / CARD).is_file():
            shutil.copyfile(place / CARD, folder / "README.md")
            if (place / "curve.png").is_file():
                shutil.copyfile(place / "curve.png", folder / "curve.png")
            return


def _write_timm(name: str, model: Any, folder: Path) -> None:  # noqa: ANN401 (timm's models share no type)
    stated = {
        key: value for key, value in model.pretrained_cfg.items() if key not in ("file", "hf_hub_id", "source", "url")
    }
    stated["num_classes"] = 0
    architecture = name.partition(".")[0]
    write_json(
        folder / "config.json",
        {"architecture": architecture, "num_features": model.num_features, "num_classes": 0, "pretrained_cfg": stated},
    )
    save_tensors(model.state_dict(), folder / "model.safetensors", {"format": "pt"})


def _write_transformers(name: str, model: nn.Module, folder: Path) -> None:
    if not isinstance(model, PixioVisionTransformer):
        raise UserError(f"transformers' Pixio layout holds Pixio's encoders, and {name} is none: choose format=timm.")
    blocks: Any = model.blocks
    stated: Any = model.pretrained_cfg
    size: Any = model.patch_embed.img_size
    patch = model.patch_embed.patch_size[0]
    assert size is not None
    hidden = blocks[0].mlp.fc1.out_features
    config = {
        "architectures": ["PixioModel"],
        "model_type": "pixio",
        "hidden_size": model.embed_dim,
        "num_hidden_layers": len(blocks),
        "num_attention_heads": blocks[0].attn.num_heads,
        "mlp_ratio": hidden // model.embed_dim,
        "image_size": size[0],
        "patch_size": patch,
        "n_cls_tokens": model.num_prefix_tokens,
        "layer_norm_eps": model.norm.eps,
        "torch_dtype": "float32",
    }
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(stated["mean"]),
        "image_std": list(stated["std"]),
        "resample": 2,  # bilinear, as `ImagePreprocessor`
        "rescale_factor": 1 / 255,
        "size": {"height": size[0], "width": size[1]},
    }
    write_json(folder / "config.json", config)
    write_json(folder / "preprocessor_config.json", processor)
    save_tensors(transformers_weights(model), folder / "model.safetensors", {"format": "pt"})


def transformers_weights(model: PixioVisionTransformer) -> dict[str, Tensor]:
    """Return a Pixio encoder's weights by the names of the published transformers checkpoints."""
    state = model.state_dict()
    state["cls_token"] = model.class_tokens().detach()
    state.pop("reg_token", None)
    weights: dict[str, Tensor] = {}
    for key, value in state.items():
        fused = re.match(r"^(blocks\.\d+\.attn)\.qkv\.(weight|bias)$", key)
        parts = {key: value}
        if fused:
            names = (f"{fused[1]}.{part}.{fused[2]}" for part in ("query", "key", "value"))
            parts = dict(zip(names, value.chunk(3), strict=True))
        for name, part in parts.items():
            for pattern, replacement in _RENAMES:
                name = re.sub(pattern, replacement, name)
            weights[name] = part.contiguous().clone()
    return weights


@torch.no_grad()
def _difference(model: Any, form: Format, folder: Path) -> float | None:  # noqa: ANN401
    """Load a folder as its users do, and compare features of noise, of the encoder's own size."""
    _, *size = model.pretrained_cfg["input_size"]
    images_BCHW = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    if form == "timm":
        other: Any = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
        features = other.forward_features(images_BCHW)
    elif importlib.util.find_spec("transformers") is None:
        return None
    else:
        from transformers import AutoModel

        features = AutoModel.from_pretrained(folder).eval()(images_BCHW).last_hidden_state
    expected = model.forward_features(images_BCHW)
    return float((features - expected).abs().max() / expected.abs().max())
