"""The Pixio encoder family as timm models (arXiv 2512.15715, section 3 and table 1).

Shape letters: B batch, N tokens, D width, h and w patch-grid height and width.
"""

from pathlib import Path
from typing import Any

import torch
from timm.layers.patch_embed import PatchEmbed
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from pixio_robot.encoders.checkpoints import pixio_checkpoint_filter

NUM_CLASS_TOKENS = 8
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
WEIGHTS_FOLDER = Path(__file__).parent / "weights"


class PixioVisionTransformer(VisionTransformer):
    """timm's ViT with several class tokens and Pixio's position resampling and initialisation.

    timm keeps the first class token in `cls_token` and the others, seven in a Pixio and none in a plain MAE, in
    `reg_token`; all carry a position embedding.
    """

    # Always there, where timm allows None.
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
        """Return the position embedding (1, class tokens + h·w, D) for an h × w patch grid.

        Bicubic without antialiasing, as `transformers`' PixioModel resamples it; timm's own resampling uses
        antialiasing and differs by some 5e-3.
        """
        return resample_abs_pos_embed(  # pyright: ignore[reportCallIssue] (timm wraps it for fx by name)
            self.pos_embed,
            new_size=[h, w],
            old_size=list(self.patch_embed.grid_size),
            num_prefix_tokens=self.num_prefix_tokens,
            antialias=False,
            align_corners=False,
        )

    def class_tokens(self) -> Tensor:
        """Return the learnt class tokens (1, 8, D), one in a plain MAE, without their positions."""
        return self.cls_token if self.reg_token is None else torch.cat([self.cls_token, self.reg_token], dim=1)

    def _pos_embed(self, x: Tensor) -> Tensor:
        batch, h, w, width = x.shape
        tokens_BND = torch.cat([self.class_tokens().expand(batch, -1, -1), x.reshape(batch, h * w, width)], dim=1)
        return self.pos_drop(tokens_BND + self.positions(h, w))


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


def _create_pixio(variant: str, pretrained: bool, **kwargs: Any) -> PixioVisionTransformer:  # noqa: ANN401
    arguments: dict[str, Any] = {
        "patch_size": 16,
        "reg_tokens": NUM_CLASS_TOKENS - 1,
        "num_classes": 0,
        "global_pool": "",
        "dynamic_img_size": True,
        **kwargs,
    }
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
    """Ours, 2.9 M parameters, native size 128 px; its weights ship in this package."""
    arguments = {"img_size": 128, "embed_dim": 192, "depth": 6, "num_heads": 3, **kwargs}
    return _create_pixio("pixio_tiny16", pretrained, **arguments)


@register_model
def mae_tiny16(pretrained: bool = False, **kwargs: Any) -> PixioVisionTransformer:  # noqa: ANN401
    """`pixio_tiny16` with the one class token of a plain MAE (arXiv 2111.06377), to compare recipes; no weights ship."""
    arguments = {"img_size": 128, "embed_dim": 192, "depth": 6, "num_heads": 3, "reg_tokens": 0, **kwargs}
    return _create_pixio("mae_tiny16", pretrained, **arguments)


@register_model
def pixio_small16(pretrained: bool = False, **kwargs: Any) -> PixioVisionTransformer:  # noqa: ANN401
    """Ours, 21.7 M parameters, native size 128 px; its weights ship in this package."""
    arguments = {"img_size": 128, "embed_dim": 384, "depth": 12, "num_heads": 6, **kwargs}
    return _create_pixio("pixio_small16", pretrained, **arguments)


@register_model
def pixio_vitb16(pretrained: bool = False, **kwargs: Any) -> PixioVisionTransformer:  # noqa: ANN401
    """Official ViT-B/16, 85.86 M parameters, native size 256 px."""
    arguments = {"img_size": 256, "embed_dim": 768, "depth": 12, "num_heads": 12, **kwargs}
    return _create_pixio("pixio_vitb16", pretrained, **arguments)


@register_model
def pixio_vitl16(pretrained: bool = False, **kwargs: Any) -> PixioVisionTransformer:  # noqa: ANN401
    """Official ViT-L/16, 303.38 M parameters, native size 256 px."""
    arguments = {"img_size": 256, "embed_dim": 1024, "depth": 24, "num_heads": 16, **kwargs}
    return _create_pixio("pixio_vitl16", pretrained, **arguments)


@register_model
def pixio_vith16(pretrained: bool = False, **kwargs: Any) -> PixioVisionTransformer:  # noqa: ANN401
    """Official ViT-H/16, 631.01 M parameters, native size 256 px."""
    arguments = {"img_size": 256, "embed_dim": 1280, "depth": 32, "num_heads": 16, **kwargs}
    return _create_pixio("pixio_vith16", pretrained, **arguments)


@register_model
def pixio_vit1b16(pretrained: bool = False, **kwargs: Any) -> PixioVisionTransformer:  # noqa: ANN401
    """Official ViT-1B/16, 1361.5 M parameters, native size 256 px."""
    arguments = {"img_size": 256, "embed_dim": 1536, "depth": 48, "num_heads": 24, **kwargs}
    return _create_pixio("pixio_vit1b16", pretrained, **arguments)


@register_model
def pixio_vit5b16(pretrained: bool = False, **kwargs: Any) -> PixioVisionTransformer:  # noqa: ANN401
    """Official ViT-5B/16, 5440.9 M parameters, native size 256 px."""
    arguments = {"img_size": 256, "embed_dim": 3072, "depth": 48, "num_heads": 32, **kwargs}
    return _create_pixio("pixio_vit5b16", pretrained, **arguments)
