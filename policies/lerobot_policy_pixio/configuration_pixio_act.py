"""Configuration of ACT on a Pixio (or any timm) encoder."""

from dataclasses import dataclass, field

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.utils.constants import OBS_IMAGES

TOKENS_PREFIX = "observation.tokens."
"""Prefix of cached encoder tokens in a batch: `observation.tokens.<camera>`, (B, G + h·w, D)."""


def tokens_key(image_key: str) -> str:
    """Return the batch key of the cached tokens of a camera, given its image key."""
    return TOKENS_PREFIX + image_key.removeprefix(f"{OBS_IMAGES}.")


@PreTrainedConfig.register_subclass("pixio_act")
@dataclass
class PixioACTConfig(ACTConfig):
    """LeRobot's ACT with a shared vision encoder and a token neck in place of its ResNet.

    The defaults are sized for training in minutes on two CPU cores.
    """

    chunk_size: int = 16
    n_action_steps: int = 8
    # The encoder normalises images itself, so that nothing outside can do it twice.
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {
            "VISUAL": NormalizationMode.IDENTITY,
            "STATE": NormalizationMode.MEAN_STD,
            "ACTION": NormalizationMode.MEAN_STD,
        }
    )
    pretrained_backbone_weights: str | None = None
    dim_model: int = 256
    n_heads: int = 4
    dim_feedforward: int = 1024
    n_encoder_layers: int = 2
    use_vae: bool = False
    optimizer_lr: float = 3e-4
    optimizer_weight_decay: float = 1e-4
    push_to_hub: bool = False

    encoder_name: str = "pixio_tiny16"
    """A timm model name; the Pixio variants are registered by pixio-robot."""
    encoder_weights: str = "pretrained"
    """`pretrained`, `random`, or the path of a weights file; a saved policy carries its own."""
    encoder_mode: str = "frozen"
    """`frozen` or `finetune`."""
    encoder_image_size: int | None = None
    """Side in pixels to which camera frames are resized; None keeps the camera's size."""
    neck_width: int = 32
    """Numbers that remain of each encoder token; their positions are kept by flattening."""
    neck_tokens: int = 1
    """Tokens that each camera hands to the ACT transformer."""
