"""Configuration of ACT on a Pixio (or any timm) encoder."""

from dataclasses import dataclass, field

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.policies.act.configuration_act import ACTConfig

from lerobot_policy_pixio.vision_config import VisionConfig, normalised_by


@PreTrainedConfig.register_subclass("pixio_act")
@dataclass
class PixioACTConfig(VisionConfig, ACTConfig):
    """LeRobot's ACT with a shared vision encoder and a token neck in place of its ResNet.

    The defaults are sized for training in minutes on two CPU cores.
    """

    chunk_size: int = 16
    n_action_steps: int = 8
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: normalised_by(NormalizationMode.MEAN_STD)
    )
    pretrained_backbone_weights: str | None = None
    dim_model: int = 256
    n_heads: int = 4
    dim_feedforward: int = 1024
    n_encoder_layers: int = 2
    use_vae: bool = False
    optimizer_lr: float = 3e-4
    optimizer_weight_decay: float = 1e-4

    neck_tokens: int = 1
    """Tokens that each camera hands to the ACT transformer."""
