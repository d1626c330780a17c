"""The Pixio encoder family as timm models (arXiv 2512.15715, section 3 and table 1).

Shape letters: B batch, N tokens, D width, h and w patch-grid height and width.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from timm.layers.pool1d import global_pool_nlc
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model, register_notrace_function
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from pixio_robot.encoders.containers import find_weights
from pixio_robot.images.preprocessing import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    from timm.layers.patch_embed import PatchEmbed

NUM_CLASS_TOKENS = 8
WEIGHTS_FOLDER = Path(__file__).parent / "weights"

# Applied in order to every key; both transformers layouts become timm's.
_RENAMES = (
    (r"^encoder\.layer\.", "layers."),
    (r"^layers\.", "blocks."),
    (r"^layernorm\.", "norm."),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.([qkv])_proj\.", r".attn.\1."),
    (r"\.attention\.(o_proj|output\.dense)\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
)
_QUERY_KEY_VALUE = re.compile(r"^(blocks\.\d+\.attn)\.(query|key|value|q|k|v)\.(weight|bias)$")
_PRETRAINING_ONLY = re.compile(r"^(decoder|mask_token|head\.)")


class PixioVisionTransformer(VisionTransformer):
    """timm's ViT with several class tokens and Pixio's position resampling and initialisation.

    timm keeps the first class token in `cls_token` and the others, seven in a Pixio and none in a plain MAE, in
    `reg_token`; all carry a position embedding. Pooled by `token`, its default, it gives the mean of all class tokens, as
    `transformers`' PixioModel does.
    """

    if (
        TYPE_CHECKING
    ):  # Always there, where timm allows None; TorchScript reads annotations, too, and knows no such classes.
        cls_token: nn.Parameter
        pos_embed: nn.Parameter
        patch_embed: PatchEmbed

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401 (passed through to timm)
        super().__init__(weight_init="skip", **kwargs)
        if not self.pos_embed.is_meta:
            self.initialise()

    def initialise(self) -> None:
        """Initialise as MAE and Pixio do: Xavier for linear layers, 0.02 for tokens and positions."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                module.reset_parameters()
        projection = self.patch_embed.proj
        nn.init.xavier_uniform_(projection.weight.view(projection.weight.shape[0], -1))
        if projection.bias is not None:
            nn.init.zeros_(projection.bias)
        nn.init.normal_(self.cls_token, std=0.02)
        if self.reg_token is not None:
            nn.init.normal_(self.reg_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def positions(self, h: int, w: int) -> Tensor:
        """Return the position embedding (1, class tokens + h·w, D) for an h × w patch grid."""
        return _resample(self.pos_embed, self.patch_embed.grid_size, (h, w), self.num_prefix_tokens)

    def class_tokens(self) -> Tensor:
        """Return the learnt class tokens (1, 8, D), one in a plain MAE, without their positions."""
        return self.cls_token if self.reg_token is None else torch.cat([self.cls_token, self.reg_token], dim=1)

    def pool(self, x: Tensor, pool_type: str | None = None) -> Tensor:
        """Return the mean class token (B, D) for `token`; what timm does for its other names."""
        if self.attn_pool is not None:
            return self.attn_pool(x if self.pool_include_prefix else x[:, self.num_prefix_tokens :])
        kind = self.global_pool if pool_type is None else pool_type
        if kind == "token":
            return x[:, : self.num_prefix_tokens].mean(dim=1)
        return global_pool_nlc(x, kind, self.num_prefix_tokens, self.pool_include_prefix)

    def _pos_embed(self, x: Tensor) -> Tensor:
        positions = self.pos_embed
        if self.dynamic_img_size:
            _, h, w, _ = x.shape
            positions = self.positions(h, w)
            x = x.flatten(1, 2)
        tokens_BND = torch.cat([self.class_tokens().expand(x.shape[0], -1, -1), x], dim=1)
        return self.pos_drop(tokens_BND + positions)


torch.fx.wrap("_resample")  # its branches are on sizes, which a symbolic trace does not have


@register_notrace_function
def _resample(positions: Tensor, old_size: tuple[int, int], new_size: tuple[int, int], prefix: int) -> Tensor:
    """Resample a position embedding (1, prefix + h·w, D) to another patch grid.

    Bicubic without antialiasing, as `transformers`' PixioModel resamples it; timm's own resampling uses
    antialiasing and differs by some 5e-3.
    """
    return resample_abs_pos_embed(  # pyright: ignore[reportCallIssue] (timm wraps it for fx by name)
        positions, new_size=new_size, old_size=old_size, num_prefix_tokens=prefix, antialias=False
    )


def pixio_checkpoint_filter(state_dict: Mapping[str, Any], model: PixioVisionTransformer) -> dict[str, Tensor]:
    """Convert a Pixio checkpoint of any public layout to the keys and the patch grid of a model.

    Args:
        state_dict: Original `.pth`, transformers' files on disk, the names that transformers 5 uses in memory, or timm's
            own layout, in any container (see `find_weights`); weights that only pretraining needs are dropped.
        model: The Pixio model that will load the result; a position embedding of another image size is resampled to its
            grid as `PixioVisionTransformer.positions` does for each image.
    """
    expected = model.state_dict().keys()
    weights: dict[str, Tensor] = {}
    attention_parts: dict[str, dict[str, Tensor]] = {}
    for key, value in find_weights(state_dict, expected, timms_name).tensors.items():
        key = _renamed(key)
        part = _QUERY_KEY_VALUE.match(key)
        if part:
            attention_parts.setdefault(timms_name(key), {})[part[2][0]] = value
        elif key in expected or not _PRETRAINING_ONLY.match(key):
            weights[key] = value
    for key, parts in attention_parts.items():
        if set(parts) == {"q", "k", "v"}:
            weights[key] = torch.cat([parts["q"], parts["k"], parts["v"]])
    class_tokens = weights.get("cls_token")
    if class_tokens is not None and "reg_token" not in weights and class_tokens.shape[1] > 1:
        weights["cls_token"], weights["reg_token"] = class_tokens[:, :1], class_tokens[:, 1:]
    return _positions_for_grid(weights, model)


def _renamed(key: str) -> str:
    for pattern, replacement in _RENAMES:
        key = re.sub(pattern, replacement, key)
    return key


def timms_name(key: str) -> str:
    """Return timm's name for a weight of any layout; queries, keys and values are parts of one."""
    key = _renamed(key)
    part = _QUERY_KEY_VALUE.match(key)
    return f"{part[1]}.qkv.{part[3]}" if part else key


def _positions_for_grid(weights: dict[str, Tensor], model: PixioVisionTransformer) -> dict[str, Tensor]:
    """Resample a square position embedding of another image size than the model's."""
    positions, prefix = weights.get("pos_embed"), model.num_prefix_tokens
    if positions is None or positions.ndim != 3 or positions.shape[-1] != model.embed_dim:
        return weights
    side = math.isqrt(max(0, positions.shape[1] - prefix))
    if positions.shape == model.pos_embed.shape or side == 0 or side**2 + prefix != positions.shape[1]:
        return weights
    return {
        **weights,
        "pos_embed": _resample(positions.float(), (side, side), model.patch_embed.grid_size, prefix),
    }


def _pretrained_cfg(native_size: int, **source: str) -> dict[str, Any]:
    return {
        "input_size": (3, native_size, native_size),
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "num_classes": 0,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
        **source,
    }


def _official(hub_id: str) -> dict[str, Any]:
    return _pretrained_cfg(
        256, hf_hub_id=hub_id, license="fair-noncommercial", paper_ids="arXiv:2512.15715", origin_url=""
    )


_PIXIO_CFGS = {
    "pixio_tiny16": _pretrained_cfg(128, file=str(WEIGHTS_FOLDER / "pixio_tiny16.safetensors"), license="apache-2.0"),
    "pixio_small16": _pretrained_cfg(128, file=str(WEIGHTS_FOLDER / "pixio_small16.safetensors"), license="apache-2.0"),
    "pixio_vitb16": _official("facebook/pixio-vitb16"),
    "pixio_vitl16": _official("facebook/pixio-vitl16"),
    "pixio_vith16": _official("facebook/pixio-vith16"),
    "pixio_vit1b16": _official("facebook/pixio-vit1b16"),
    "pixio_vit5b16": _official("facebook/pixio-vit5b16"),
}
PIXIO_VARIANTS = tuple(_PIXIO_CFGS)
PRETRAINABLE = (*PIXIO_VARIANTS, "mae_tiny16")
"""Encoders that `pixio_robot.pretraining` trains: Pixio's, and a plain MAE to compare with."""
default_cfgs = generate_default_cfgs({**_PIXIO_CFGS, "mae_tiny16": _pretrained_cfg(128)})


def _create(
    variant: str, pretrained: bool, size: int, width: int, depth: int, heads: int, kwargs: dict[str, Any]
) -> PixioVisionTransformer:
    arguments: dict[str, Any] = {"img_size": size, "embed_dim": width, "depth": depth, "num_heads": heads}
    arguments |= {"patch_size": 16, "reg_tokens": NUM_CLASS_TOKENS - 1, "num_classes": 0}
    arguments |= {"dynamic_img_size": True, **kwargs}
    return build_model_with_cfg(
        PixioVisionTransformer,
        variant,
        pretrained,
        pretrained_filter_fn=pixio_checkpoint_filter,
        feature_cfg={"out_indices": 3, "feature_cls": "getter"},
        **arguments,
    )


@register_model
def pixio_tiny16(pretrained: bool = False, **kwargs: Any) -> PixioVisionTransformer:  # noqa: ANN401
    """Ours, 2.8 M parameters, native size 128 px; its weights ship in this package."""
    return _create("pixio_tiny16", pretrained, 128, 192, 6, 3, kwargs)


@register_model
def mae_tiny16(pretrained: bool = False, **kwargs: Any) -> PixioVisionTransformer:  # noqa: ANN401
    """`pixio_tiny16` with the one class token of a plain MAE (arXiv 2111.06377), to compare recipes; no weights ship."""
    return _create("mae_tiny16", pretrained, 128, 192, 6, 3, {"reg_tokens": 0, **kwargs})


@register_model
def pixio_small16(pretrained: bool = False, **kwargs: Any) -> PixioVisionTransformer:  # noqa: ANN401
    """Ours, 21.6 M parameters, native size 128 px; its weights ship in this package."""
    return _create("pixio_small16", pretrained, 128, 384, 12, 6, kwargs)


@register_model
def pixio_vitb16(pretrained: bool = False, **kwargs: Any) -> PixioVisionTransformer:  # noqa: ANN401
    """Official ViT-B/16, 85.86 M parameters, native size 256 px."""
    return _create("pixio_vitb16", pretrained, 256, 768, 12, 12, kwargs)


@register_model
def pixio_vitl16(pretrained: bool = False, **kwargs: Any) -> PixioVisionTransformer:  # noqa: ANN401
    """Official ViT-L/16, 303.38 M parameters, native size 256 px."""
    return _create("pixio_vitl16", pretrained, 256, 1024, 24, 16, kwargs)


@register_model
def pixio_vith16(pretrained: bool = False, **kwargs: Any) -> PixioVisionTransformer:  # noqa: ANN401
    """Official ViT-H/16, 631.01 M parameters, native size 256 px."""
    return _create("pixio_vith16", pretrained, 256, 1280, 32, 16, kwargs)


@register_model
def pixio_vit1b16(pretrained: bool = False, **kwargs: Any) -> PixioVisionTransformer:  # noqa: ANN401
    """Official ViT-1B/16, 1361.5 M parameters, native size 256 px."""
    return _create("pixio_vit1b16", pretrained, 256, 1536, 48, 24, kwargs)


@register_model
def pixio_vit5b16(pretrained: bool = False, **kwargs: Any) -> PixioVisionTransformer:  # noqa: ANN401
    """Official ViT-5B/16, 5440.9 M parameters, native size 256 px."""
    return _create("pixio_vit5b16", pretrained, 256, 3072, 48, 32, kwargs)
