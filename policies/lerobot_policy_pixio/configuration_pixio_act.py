"""Configuration of ACT on a Pixio (or any timm) encoder."""

from dataclasses import dataclass, field

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.policies.act.configuration_act import ACTConfig

from lerobot_policy_pixio.vision_config import VisionConfig, normalised_by
from pixio_robot.common.errors import UserError


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

    def __post_init__(self) -> None:
        """Check that the heads of attention divide the width.

        Raises:
            UserError: They do not.
        """
        super().__post_init__()
        if self.dim_model % self.n_heads:
            raise UserError(
                f"policy.dim_model={self.dim_model} must be a multiple of policy.n_heads={self.n_heads}, its heads of attention."
            )
