"""One call around any timm backbone: images in, global and patch tokens out.

Shape letters: B batch, G global tokens, D width, H and W image size, h and w patch-grid size, N = G + h·w.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from pixio_robot.encoders import pixio
from pixio_robot.encoders.checkpoints import load_encoder_weights
from pixio_robot.encoders.hub import pretrained_weights
from pixio_robot.encoders.preprocessing import ImagePreprocessor
from pixio_robot.errors import UserError, nearest_name

Mode = Literal["frozen", "finetune"]


class EncoderTokens(NamedTuple):
    """What an encoder sees in a batch of images."""

    global_tokens: Tensor
    """(B, G, D): class tokens, or the mean patch token where a backbone has none."""
    patch_tokens: Tensor
    """(B, h, w, D), row-major from the top left."""

    def flatten(self) -> Tensor:
        """Return (B, G + h·w, D), global tokens first."""
        return torch.cat([self.global_tokens, self.patch_tokens.flatten(1, 2)], dim=1)

    @staticmethod
    def unflatten(tokens_BND: Tensor, num_global: int, grid: tuple[int, int]) -> "EncoderTokens":
        """Undo `flatten`."""
        return EncoderTokens(tokens_BND[:, :num_global], tokens_BND[:, num_global:].unflatten(1, (grid[0], grid[1])))


@dataclass(frozen=True)
class EncoderConfig:
    """Which encoder, with which weights, in which mode."""

    name: str = "pixio_tiny16"
    """A timm model name; the Pixio variants are registered on import."""
    weights: str = "pretrained"
    """`pretrained` (shipped, or from the hub), `random`, or the path of a weights file."""
    mode: Mode = "frozen"
    """`frozen`: evaluation mode and no gradients, whatever the policy's `train()` says."""
    image_size: int | None = None
    """Side in pixels to resize camera frames to; None keeps the camera's size."""


def build_backbone(name: str, weights: str) -> nn.Module:
    """Create a timm backbone without classification head and load its weights.

    Args:
        name: A timm model name, Pixio variants included.
        weights: `pretrained`, `random`, or the path of a weights file.

    Raises:
        UserError: Unknown name; weights unreachable; weights that do not fit.
    """
    if not timm.is_model(name):
        raise UserError(f"Unknown encoder {name!r}. {nearest_name(name, _known_names(name))}")
    is_transformer = issubclass(_model_class(name), VisionTransformer)
    arguments: dict[str, Any] = {"dynamic_img_size": True} if is_transformer else {}
    backbone = timm.create_model(name, pretrained=False, num_classes=0, **arguments)
    if weights == "pretrained":
        load_encoder_weights(backbone, pretrained_weights(name), name)
    elif weights != "random":
        load_encoder_weights(backbone, Path(weights).expanduser(), name)
    return backbone


def _known_names(name: str) -> list[str]:
    """Pixio names always, and other timm names only when they start alike (timm has over a thousand)."""
    return [*pixio.PIXIO_VARIANTS, *timm.list_models(f"{name[:5]}*")[:5]]


def _model_class(name: str) -> type[nn.Module]:
    with torch.device("meta"):
        return type(timm.create_model(name, pretrained=False))


class VisionEncoder(nn.Module):
    """A timm backbone behind one call: images (B, 3, H, W) in [0, 1] → `EncoderTokens`.

    Preprocessing (resize, normalisation) is part of the call, so that no caller can get it wrong.
    """

    def __init__(self, config: EncoderConfig) -> None:
        """Build the backbone and load its weights.

        Raises:
            UserError: See `build_backbone`.
        """
        super().__init__()
        self.config = config
        # Any: timm's models share these attributes but no type.
        self.backbone: Any = build_backbone(config.name, config.weights)
        source = self.backbone.pretrained_cfg
        size = (config.image_size, config.image_size) if config.image_size else None
        self.preprocess = ImagePreprocessor(source["mean"], source["std"], size)
        if self.frozen:
            self.backbone.requires_grad_(False)
            self.backbone.eval()

    @property
    def frozen(self) -> bool:
        """Whether the backbone stays in evaluation mode and takes no gradients."""
        return self.config.mode == "frozen"

    @property
    def width(self) -> int:
        """Width D of the tokens."""
        return int(self.backbone.num_features)

    def train(self, mode: bool = True) -> "VisionEncoder":
        """Set the training mode; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the patch grid (h, w) for camera frames of the given size in pixels.

        Raises:
            UserError: The size is not divisible by the patch size.
        """
        if self.preprocess.image_size is not None:
            height, width = self.preprocess.image_size
        reduction = self._reduction()
        if height % reduction or width % reduction:
            smaller = max(height // reduction, 1) * reduction
            raise UserError(
                f"Images of {height}×{width} px do not fit {self.config.name}: both sides must be divisible by "
                f"{reduction}; set encoder.image_size={smaller}, or render with env.image_size={smaller}."
            )
        return height // reduction, width // reduction

    def _reduction(self) -> int:
        patch_embed = getattr(self.backbone, "patch_embed", None)
        if patch_embed is not None and hasattr(patch_embed, "patch_size"):
            return int(patch_embed.patch_size[0])
        return int(self.backbone.feature_info[-1]["reduction"])

    @property
    def num_global(self) -> int:
        """Number G of global tokens: eight for Pixio, one for other backbones."""
        return pixio.NUM_CLASS_TOKENS if isinstance(self.backbone, pixio.PixioVisionTransformer) else 1

    def forward(self, images_BCHW: Tensor) -> EncoderTokens:
        """Encode images in [0, 1], of any size divisible by the patch size."""
        if self.frozen:
            with torch.no_grad():
                return self._encode(images_BCHW)
        return self._encode(images_BCHW)

    def _encode(self, images_BCHW: Tensor) -> EncoderTokens:
        h, w = self.grid(int(images_BCHW.shape[-2]), int(images_BCHW.shape[-1]))
        features = self.backbone.forward_features(self.preprocess(images_BCHW))
        if features.ndim == 4:  # convolutional backbones: (B, D, h, w)
            patches_BhwD = features.permute(0, 2, 3, 1)
            return EncoderTokens(patches_BhwD.mean(dim=(1, 2)).unsqueeze(1), patches_BhwD)
        num_prefix = self.backbone.num_prefix_tokens
        patches_BhwD = features[:, num_prefix:].unflatten(1, (h, w))
        if num_prefix == 0:
            return EncoderTokens(patches_BhwD.mean(dim=(1, 2)).unsqueeze(1), patches_BhwD)
        return EncoderTokens(features[:, : self.num_global], patches_BhwD)
