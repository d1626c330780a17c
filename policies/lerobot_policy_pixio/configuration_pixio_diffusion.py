"""Configuration of diffusion policy on a Pixio (or any timm) encoder."""

import dataclasses
from dataclasses import dataclass, field

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig

from lerobot_policy_pixio.vision_config import VisionConfig, normalised_by
from pixio_robot.common.errors import UserError

_REPLACED_FIELDS = ("vision_backbone", "resize_shape", "crop_ratio", "crop_shape", "use_group_norm")
"""Fields of LeRobot's image encoder, in whose place our encoder and neck stand."""


@PreTrainedConfig.register_subclass("pixio_diffusion")
@dataclass
class PixioDiffusionConfig(VisionConfig, DiffusionConfig):
    """LeRobot's diffusion policy with a shared vision encoder and a token neck in place of its ResNets.

    The defaults are sized for training in minutes on two CPU cores.
    """

    n_obs_steps: int = 1
    horizon: int = 16
    n_action_steps: int = 8
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: normalised_by(NormalizationMode.MIN_MAX)
    )
    # Actions past an episode's end do not count in the loss, so that its last frames need not be dropped.
    do_mask_loss_for_padding: bool = True
    drop_n_last_frames: int = 0
    pretrained_backbone_weights: str | None = None
    use_separate_rgb_encoder_per_camera: bool = False
    down_dims: tuple[int, ...] = (64, 128, 256)
    diffusion_step_embed_dim: int = 64
    # DDIM adds noise in training exactly as DDPM does; they differ in sampling only.
    noise_scheduler_type: str = "DDIM"
    num_inference_steps: int | None = 10
    optimizer_lr: float = 3e-4

    neck_tokens: int = 1
    """Tokens of each camera; the U-Net is conditioned on all of them side by side."""
    neck_output_width: int = 64
    """Width of such a token."""

    def __post_init__(self) -> None:
        """Check that the horizon fits the U-Net and the steps fit the horizon.

        Raises:
            UserError: They do not, or a field of LeRobot's own image encoder is set.
        """
        self.down_dims = tuple(self.down_dims)
        self.check_ranges()
        stages = len(self.down_dims)
        multiple = 2**stages
        if self.horizon % multiple or self.horizon < multiple:
            fitting = max(round(self.horizon / multiple), 1) * multiple
            raise UserError(
                f"policy.horizon={self.horizon} does not fit a U-Net of {stages} stages "
                f"(policy.down_dims={list(self.down_dims)}), which needs a multiple of {multiple}: "
                f"set policy.horizon={fitting}."
            )
        wrong = [width for width in self.down_dims if width % self.n_groups]
        if wrong:
            raise UserError(f"policy.down_dims has {wrong[0]}, but needs multiples of policy.n_groups={self.n_groups}.")
        if not (self.n_obs_steps >= 1 and 1 <= self.n_action_steps <= self.horizon - self.n_obs_steps + 1):
            raise UserError(
                f"policy.n_action_steps={self.n_action_steps} must lie between 1 and "
                f"policy.horizon − policy.n_obs_steps + 1 = {self.horizon - self.n_obs_steps + 1}, "
                f"and policy.n_obs_steps={self.n_obs_steps} must be at least 1."
            )
        defaults = {field.name: field.default for field in dataclasses.fields(DiffusionConfig)}
        for name in _REPLACED_FIELDS:
            if getattr(self, name) != defaults[name]:
                raise UserError(f"policy.{name} has no effect in {self.type}: its images go through encoder and neck.")
        super().__post_init__()
