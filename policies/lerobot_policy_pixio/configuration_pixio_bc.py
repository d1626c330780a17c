"""Configuration of behaviour cloning with CortexBench's head on a Pixio (or any timm) encoder."""

from dataclasses import dataclass, field

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.optim import AdamConfig

from lerobot_policy_pixio.vision_config import VisionConfig, normalised_by
from pixio_robot.common.errors import UserError, nearest_name

INPUT_NORMS = ("batch", "layer")


@PreTrainedConfig.register_subclass("pixio_bc")
@dataclass
class PixioBCConfig(VisionConfig, PreTrainedConfig):
    """CortexBench's policy: fused embeddings of the last frames, then an MLP that regresses actions.

    The defaults are CortexBench's protocol for its MuJoCo suites (arXiv 2303.18240, also used by arXiv 2512.15715,
    table 5). A longer `chunk_size`, the `spatial_softmax` neck and layer normalisation suit short
    trainings on manipulation better.
    """

    n_obs_steps: int = 3
    """Frames O, of which the last embedding and the O − 1 differences between neighbours are used."""
    chunk_size: int = 1
    """Actions predicted at once."""
    n_action_steps: int = 1
    """Actions executed before the next prediction."""
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: normalised_by(NormalizationMode.MEAN_STD)
    )
    neck: str = "cls_mean"
    input_norm: str = "batch"
    """How the head normalises what it reads: `batch` is CortexBench's and divides by each feature's spread in the
    demonstrations, `layer` by that within the observation itself, which other light moves far less."""
    hidden_width: int = 256
    """Width of the hidden layers."""
    hidden_layers: int = 3
    """Number of hidden layers."""
    optimizer_lr: float = 1e-3

    def __post_init__(self) -> None:
        """Check the numbers of steps and the name of the norm.

        Raises:
            UserError: The norm is unknown, or more actions are executed than predicted.
        """
        super().__post_init__()
        if not 1 <= self.n_action_steps <= self.chunk_size:
            raise UserError(
                f"policy.n_action_steps={self.n_action_steps} must lie between 1 and policy.chunk_size={self.chunk_size}."
            )
        if self.input_norm not in INPUT_NORMS:
            raise UserError(
                f"Unknown policy.input_norm={self.input_norm}. {nearest_name(self.input_norm, INPUT_NORMS)}"
            )

    def get_optimizer_preset(self) -> AdamConfig:
        """Return CortexBench's optimiser, which lerobot-train uses."""
        return AdamConfig(lr=self.optimizer_lr, weight_decay=0.0)

    def get_scheduler_preset(self) -> None:
        """Return no schedule."""
        return

    @property
    def observation_delta_indices(self) -> list[int]:
        """Steps of the observations, relative to the present."""
        return list(range(1 - self.n_obs_steps, 1))

    @property
    def action_delta_indices(self) -> list[int]:
        """Steps of the actions, relative to the present."""
        return list(range(self.chunk_size))

    @property
    def reward_delta_indices(self) -> None:
        """Rewards are not used."""
        return
