"""One call around any timm backbone: images in, global and patch tokens out.

Shape letters: B batch, G global tokens, D width, H and W image size, h and w patch-grid size, N = G + h·w.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pixio_robot.common.errors import UserError
from pixio_robot.encoders.adapters import add_adapters, base_keys, base_weights, merge_adapters
from pixio_robot.encoders.backbones import (
    Layout,
    Size,
    build_backbone,
    layout,
    patch_layout,
    patch_side,
    takes_any_size,
)
from pixio_robot.encoders.checkpoints import load_encoder_weights, tensors_hash
from pixio_robot.encoders.config import EncoderConfig, is_pretrained
from pixio_robot.encoders.hub import with_commit
from pixio_robot.encoders.intermediate import intermediate_tokens, stages
from pixio_robot.encoders.pixels import RawPixels
from pixio_robot.encoders.pixio import PixioVisionTransformer
from pixio_robot.encoders.references import REFERENCE_KEY, WeightsReference
from pixio_robot.encoders.torchscript import TORCHSCRIPT, TorchScriptBackbone
from pixio_robot.images.preprocessing import ImagePreprocessor


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


class VisionEncoder(nn.Module):
    """A timm backbone behind one call: images (B, 3, H, W) in [0, 1] → `EncoderTokens`.

    Preprocessing (resize, normalisation) is part of the call, so that no caller can get it wrong.

    Its state dict names frozen weights that came from a file by `WeightsReference` instead of holding them; loading
    such a state reads the file and checks the hash. States that hold all weights load as ever, and are what random
    weights (no file to refer to), fine-tuned ones and `self_contained` ones give.
    """

    def __init__(
        self, config: EncoderConfig, *, from_checkpoint: bool = False, frame_size: Sequence[int] | None = None
    ) -> None:
        """Build the backbone and load its weights.

        Args:
            config: Which encoder.
            frame_size: Height and width in pixels of the frames that it will see, for networks that are built for one size
                of images, as Swin is; `config.image_size` goes before it.
            from_checkpoint: Leave the weights to a state about to be loaded; `config.weights` then only says where
                to look for weights that it refers to.

        Raises:
            UserError: See `build_backbone`, or a mode that does not suit the encoder.
        """
        super().__init__()
        self.config = config
        self.temporarily_frozen = False
        size = (config.image_size, config.image_size) if config.image_size else None
        self._built_for: Size | None = size or (None if frame_size is None else (frame_size[0], frame_size[1]))
        self._layouts: dict[Size, Layout] = {}
        # Any: timm's models share these attributes but no type.
        self.backbone: Any = self._build_backbone(from_checkpoint)
        source = self.backbone.pretrained_cfg
        self.preprocess = ImagePreprocessor(source["mean"], source["std"], config.image_size, patch_side(self.backbone))
        if config.mode != "finetune":
            self.backbone.requires_grad_(False)
            self.backbone.eval()
        if config.mode == "lora":
            add_adapters(self.backbone, config.lora_rank, config.lora_alpha, config.lora_targets)
        self._source: str | None = None
        """Where the present frozen weights can be read again: `pretrained` or a path; None where nowhere."""
        self._hash: str | None = None
        is_script = config.name == TORCHSCRIPT
        is_learnt = not isinstance(self.backbone, RawPixels)
        has_file = is_script or (config.weights != "random" and not from_checkpoint)
        if config.mode != "finetune" and is_learnt and has_file:
            published = is_pretrained(config.weights)
            self._source = with_commit(config.name, config.weights) if published else _absolute(config.weights)
        self.register_state_dict_post_hook(VisionEncoder._refer_to_weights)
        self.register_load_state_dict_pre_hook(VisionEncoder._find_weights)

    def _build_backbone(self, from_checkpoint: bool) -> nn.Module:
        config = self.config
        if config.name != TORCHSCRIPT:
            return build_backbone(config.name, "random" if from_checkpoint else config.weights, self._built_for)
        if config.mode != "frozen":
            raise UserError(f"A TorchScript encoder can only be frozen: set encoder.mode=frozen, not {config.mode}.")
        if config.self_contained:
            raise UserError(
                "A TorchScript encoder is code, which a checkpoint cannot hold: set encoder.self_contained=false and "
                "keep the file beside the checkpoint."
            )
        return TorchScriptBackbone(Path(config.weights).expanduser(), config.image_size)

    def reference(self) -> WeightsReference | None:
        """Return the reference that stands for the frozen weights in the state dict; None where they stand in it."""
        if self._source is None or self.config.self_contained:
            return None
        if self._hash is None:
            self._hash = tensors_hash(base_weights(self.backbone))
        return WeightsReference(self.config.name, self._source, self._hash)

    def _refer_to_weights(self, state: dict[str, Any], prefix: str, local_metadata: dict[str, Any]) -> None:
        """Put the reference in the place of the frozen weights of a state dict."""
        del local_metadata
        reference = self.reference()
        if reference is not None:
            for key in base_keys(self.backbone).values():
                del state[f"{prefix}backbone.{key}"]
            state[prefix + REFERENCE_KEY] = reference.pack()

    def _find_weights(self, state: dict[str, Any], prefix: str, *_: object) -> None:
        """Put the weights that a state dict refers to into it."""
        keys = base_keys(self.backbone)
        packed = state.pop(prefix + REFERENCE_KEY, None)
        if packed is None:
            if any(f"{prefix}backbone.{key}" in state for key in keys.values()):
                self._source = self._hash = None  # weights of a checkpoint, which no file need hold
            return
        wanted = WeightsReference.unpack(packed)
        if wanted.name != self.config.name:
            raise UserError(
                f"The checkpoint refers to the weights of {wanted.name}, but its config names {self.config.name}; "
                f"it is incomplete or was edited."
            )
        if self._source is not None:  # read before, and never trained
            weights = base_weights(self.backbone)
            wanted.check(tensors_hash(weights), self._source)
        else:
            place = wanted.find(self.config.weights)
            # Without adapters, as the file has it.
            plain = (
                build_backbone(wanted.name, "random", self._built_for) if self.config.mode == "lora" else self.backbone
            )
            load_encoder_weights(plain, place, wanted.name)
            weights = plain.state_dict()
            wanted.check(tensors_hash(weights), place)
            if self.config.mode != "finetune":
                self._source = wanted.weights if is_pretrained(wanted.weights) else _absolute(str(place))
                self._hash = wanted.hash
        state.update({f"{prefix}backbone.{key}": weights[name] for name, key in keys.items()})

    def merge_adapters(self) -> None:
        """Add the adapters of mode `lora` to the weights, for export; the encoder is frozen afterwards."""
        if self.config.mode == "lora":
            merge_adapters(self.backbone)
            self.backbone.requires_grad_(False)
            self._source = self._hash = None
            self.config = replace(self.config, mode="frozen")

    @property
    def frozen(self) -> bool:
        """Whether the backbone stays in evaluation mode and takes no gradients."""
        return self.config.mode == "frozen"

    @property
    def width(self) -> int:
        """Width D of the tokens."""
        return int(self.backbone.num_features)

    def train(self, mode: bool = True) -> "VisionEncoder":
        """Set the training mode; a backbone whose own weights do not train stays in evaluation mode."""
        super().train(mode)
        if self.config.mode != "finetune" or self.temporarily_frozen:
            self.backbone.eval()
        return self

    def freeze_temporarily(self, frozen: bool) -> None:
        """Treat the backbone as frozen for the time being (the first steps of a fine-tuning), or no longer."""
        if frozen != self.temporarily_frozen:
            self.temporarily_frozen = frozen
            self.train(self.training)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the patch grid (h, w) for camera frames of the given size in pixels.

        Raises:
            UserError: The encoder does not take this size: its patches do not divide it, or it is built for another.
        """
        return self._layout(height, width).grid

    def _layout(self, height: int, width: int) -> Layout:
        """Say how the features of camera frames of a size are to be read."""
        size = self.preprocess.seen(height, width)
        if takes_any_size(self.backbone):
            return patch_layout(self.backbone, self.config.name, size)
        if isinstance(self.backbone, TorchScriptBackbone):
            return Layout(self.backbone.num_prefix_tokens, self.backbone.grid(*size), channels_last=False)
        if size not in self._layouts:
            self._layouts[size] = layout(self.config.name, size, self._built_for)
        return self._layouts[size]

    @property
    def num_global(self) -> int:
        """Number G of global tokens: eight for Pixio, one for other timm models, its own for a TorchScript file."""
        if isinstance(self.backbone, TorchScriptBackbone):
            return max(1, self.backbone.num_prefix_tokens)
        return self.backbone.num_prefix_tokens if isinstance(self.backbone, PixioVisionTransformer) else 1

    def forward(self, images_BCHW: Tensor) -> EncoderTokens:
        """Encode images in [0, 1], of any size divisible by the patch size."""
        if self.frozen or self.temporarily_frozen:
            with torch.no_grad():
                return self._encode(images_BCHW)
        return self._encode(images_BCHW)

    def intermediate(self, images_BCHW: Tensor, blocks: int) -> list[EncoderTokens]:
        """Encode images and return the tokens of evenly spaced blocks, the last among them, each through the final norm.

        Of a convolutional or hierarchical backbone, its last stages, the finest first, as they are.

        Args:
            images_BCHW: Images in [0, 1], of any size divisible by the patch size.
            blocks: How many blocks or stages.

        Raises:
            UserError: The encoder gives its output alone, as a TorchScript file does, or has fewer blocks.
        """
        indices, _ = stages(self.backbone, blocks, self.config.name)
        self.grid(int(images_BCHW.shape[-2]), int(images_BCHW.shape[-1]))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not (self.frozen or self.temporarily_frozen)):
            found = intermediate_tokens(self.backbone, self.preprocess(images_BCHW), indices)
        return [
            EncoderTokens(_mean_token(grid) if prefix is None else prefix[:, : self.num_global], grid)
            for prefix, grid in found
        ]

    def _encode(self, images_BCHW: Tensor) -> EncoderTokens:
        read = self._layout(int(images_BCHW.shape[-2]), int(images_BCHW.shape[-1]))
        features = self.backbone.forward_features(self.preprocess(images_BCHW))
        patches_BhwD = read.patches(features)
        if features.ndim == 4 or read.num_prefix == 0:
            return EncoderTokens(_mean_token(patches_BhwD), patches_BhwD)
        return EncoderTokens(features[:, : self.num_global], patches_BhwD)


def _mean_token(patches_BhwD: Tensor) -> Tensor:
    return patches_BhwD.mean(dim=(1, 2)).unsqueeze(1)


def _absolute(weights: str) -> str:
    return weights if is_pretrained(weights) else str(Path(weights).expanduser().resolve())
