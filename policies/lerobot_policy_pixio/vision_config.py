"""What the configurations of all our policies share: encoder, neck, names of cached tokens, processors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.processor import PolicyProcessorPipeline, make_default_pre_post_processors
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE
from torch import Tensor

from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.common.still_dimensions import with_floor

NECKS = ("flatten", "spatial_softmax", "attention_pool", "cls_mean")
_COUNTS = (
    *("n_obs_steps", "chunk_size", "horizon", "n_action_steps", "neck_width", "neck_tokens", "neck_output_width"),
    *("dim_model", "n_heads", "dim_feedforward", "n_encoder_layers", "n_decoder_layers"),
    *("down_dims", "n_groups", "num_train_timesteps", "num_inference_steps", "hidden_width", "hidden_layers"),
)

TOKENS_PREFIX = "observation.tokens."
"""Prefix of cached encoder tokens in a batch: `observation.tokens.<camera>`, (B, G + h·w, D)."""


def tokens_key(image_key: str) -> str:
    """Return the batch key of the cached tokens of a camera, given its image key."""
    return TOKENS_PREFIX + image_key.removeprefix(f"{OBS_IMAGES}.")


def normalised_by(mode: NormalizationMode) -> dict[str, NormalizationMode]:
    """Return a normalisation of state and action; the encoder normalises images, so that nothing does it twice."""
    return {"VISUAL": NormalizationMode.IDENTITY, "STATE": mode, "ACTION": mode}


@dataclass
class VisionConfig:
    """Fields and checks of every policy on one encoder shared by its cameras; stands before LeRobot's config."""

    push_to_hub: bool = False

    encoder_name: str = "pixio_tiny16"
    """A timm model name (the Pixio variants are registered by pixio-robot), or `torchscript`."""
    encoder_weights: str = "pretrained"
    """`pretrained`, `random`, or the path of a weights (or TorchScript) file."""
    encoder_mode: str = "frozen"
    """`frozen`, `finetune` or `lora`."""
    encoder_image_size: int | None = None
    """Longer side in pixels to which camera frames are resized, their aspect kept; None keeps the camera's size, but a new
    policy for larger frames takes the encoder's own."""
    encoder_lora_rank: int = 8
    """Rank of the adapters of mode `lora`."""
    encoder_lora_alpha: float = 16.0
    """The adapters' scale is alpha / rank."""
    encoder_lora_targets: tuple[str, ...] = ("attn.qkv", "attn.proj")
    """Ends of the names of the layers that get an adapter."""
    encoder_self_contained: bool = False
    """Keep the frozen weights of a weights file in every checkpoint, instead of their name and hash."""
    neck: str = "flatten"
    """`flatten`, `spatial_softmax`, `attention_pool` or `cls_mean`."""
    neck_width: int = 32
    """Numbers that remain of each encoder token (`flatten`) or query; keypoints of `spatial_softmax`."""
    tasks: tuple[str, ...] = ()
    """Sentences of the tasks that it is told apart by, each with a learned embedding; others are refused. Empty: it does one
    task, and is not told which. A training on demonstrations of several fills them in."""
    condition_on_task: bool = True
    """Whether a training on demonstrations of several tasks does so."""
    token_noise: float = 0.0
    """Gaussian noise on encoder tokens in training, as a multiple of how much each varies within the batch: features
    that move little in the demonstrations and much in other light then count for little."""

    def __post_init__(self: Any) -> None:
        """Check names and ranges; see `check_ranges`."""
        self.check_ranges()
        self.tasks = tuple(self.tasks)
        self.normalization_mapping = _modes(self.normalization_mapping)
        super().__post_init__()  # type: ignore[misc]

    def check_ranges(self) -> None:
        """Check names and ranges.

        Raises:
            UserError: The neck is unknown, a task comes twice, or a number is out of its range.
        """
        if len(set(self.tasks)) < len(self.tasks):
            raise UserError("policy.tasks names a task twice: every task has one sentence.")
        if self.neck not in NECKS:
            raise UserError(f"Unknown policy.neck {self.neck!r}. {nearest_name(str(self.neck), NECKS)}")
        for name in _COUNTS:
            value = getattr(self, name, None)
            if value is not None and min(value if isinstance(value, list | tuple) else [value], default=0) < 1:
                raise UserError(f"policy.{name} must be at least 1, got {value}.")
        if not self.token_noise >= 0:
            raise UserError(f"policy.token_noise must be 0 or more, got {self.token_noise}.")
        if not 0 <= getattr(self, "dropout", 0) < 1:
            raise UserError(f"policy.dropout must be at least 0 and below 1, got {self.dropout}.")  # type: ignore[attr-defined]

    def validate_features(self: Any) -> None:
        """Check the features.

        Raises:
            UserError: There is no camera, no observation.state or no action.
        """
        if not self.image_features:
            raise UserError(f"{self.type} needs at least one camera (observation.images.*), but the data has none.")
        for name, feature in ((OBS_STATE, self.robot_state_feature), (ACTION, self.action_feature)):
            if feature is None:
                raise UserError(
                    f"{self.type} needs {name}, which these demonstrations do not have: record them with it."
                )


def _modes(mapping: Mapping[str, str]) -> dict[str, NormalizationMode]:
    """Return modes of normalisation, which settings give by their names.

    Raises:
        UserError: A name is unknown.
    """
    names = [mode.value for mode in NormalizationMode]
    for kind, mode in mapping.items():
        if mode not in names:
            raise UserError(f"Unknown policy.normalization_mapping.{kind} {mode!r}. {nearest_name(str(mode), names)}")
    return {kind: NormalizationMode(mode) for kind, mode in mapping.items()}


def make_processors(
    config: PreTrainedConfig, dataset_stats: dict[str, dict[str, Tensor]] | None = None
) -> tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]:
    """Return pre- and post-processing: LeRobot's own (batching, device, normalisation of state and action).

    Args:
        config: The policy's configuration.
        dataset_stats: Normalisation statistics by feature, as LeRobot datasets carry them; what stands still gets a floor,
            see `still_dimensions`.
    """
    if dataset_stats is not None:
        dataset_stats = with_floor(dataset_stats)
    processors: tuple[Any, Any] = make_default_pre_post_processors(
        config, dataset_stats, normalizer_device=config.device
    )
    return processors
