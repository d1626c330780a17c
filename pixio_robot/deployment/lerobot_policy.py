"""What an export needs to know of a policy in LeRobot's checkpoint format; the one module here that knows LeRobot.

Shape letters: B batch, H and W image size, S state size, A action size.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lerobot.configs import FeatureType, NormalizationMode, PreTrainedConfig
from lerobot.envs.utils import preprocess_observation
from lerobot.policies import PreTrainedPolicy
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.processor import NormalizerProcessorStep, PolicyProcessorPipeline, UnnormalizerProcessorStep
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE
from torch import Tensor

from pixio_robot.encoders import VisionEncoder, weights_hash
from pixio_robot.errors import UserError
from pixio_robot.evaluation.checkpoints import open_checkpoint
from pixio_robot.evaluation.record import software_versions


@dataclass(frozen=True)
class OpenedPolicy:
    """A policy with its processors, on the CPU, and what the artifact's shell needs of them."""

    checkpoint: Path
    config: PreTrainedConfig
    policy: PreTrainedPolicy
    processors: tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]

    @property
    def image_sizes(self) -> dict[str, tuple[int, int]]:
        """Height and width in pixels by camera key, in the policy's order."""
        return {
            key: (int(feature.shape[1]), int(feature.shape[2])) for key, feature in self.config.image_features.items()
        }

    @property
    def state(self) -> tuple[Tensor, Tensor]:
        """Mean and scale (S,) that normalise the state."""
        return _mean_and_scale(self.processors[0], NormalizerProcessorStep, OBS_STATE, FeatureType.STATE)

    @property
    def action(self) -> tuple[Tensor, Tensor]:
        """Mean and scale (A,) that unnormalise the action."""
        mean, scale = _mean_and_scale(self.processors[1], UnnormalizerProcessorStep, ACTION, FeatureType.ACTION)
        return mean, scale

    @torch.no_grad()
    def eager(self, observed: dict[str, Tensor]) -> Tensor:
        """Return the action chunk (B, horizon, A) along the very path that evaluation takes."""
        cameras: dict[str, Any] = {
            key.removeprefix(f"{OBS_IMAGES}."): observed[key].numpy() for key in self.image_sizes
        }
        raw: dict[str, Any] = {"pixels": cameras, "agent_pos": observed[OBS_STATE].numpy()}
        batch = preprocess_observation(raw)
        chunk = self.policy.predict_action_chunk(self.processors[0](batch))
        return self.processors[1](chunk)

    def metadata(self) -> dict[str, Any]:
        """Return the artifact's metadata."""
        config: Any = self.config
        run_file = self.checkpoint / "pixio_run.json"
        trained = json.loads(run_file.read_text()) if run_file.exists() else {}
        statistics = {"observation.state": self.state, "action": self.action}
        encoder = getattr(self.policy, "encoder", None)
        return {
            "kind": "policy",
            "policy": config.type,
            "cameras": {
                key: {"height": height, "width": width, "colour_order": "RGB"}
                for key, (height, width) in self.image_sizes.items()
            },
            "state_size": config.robot_state_feature.shape[0],
            "action_size": config.action_feature.shape[0],
            "observation_horizon": config.n_obs_steps,
            "action_horizon": config.chunk_size,
            "executed_actions": config.n_action_steps,
            "control_rate_hz": trained.get("env", {}).get("fps"),
            "env": trained.get("env"),
            "normalisation": {
                key: {"mean": mean.tolist(), "scale": scale.tolist()} for key, (mean, scale) in statistics.items()
            },
            "encoder": {
                "name": getattr(config, "encoder_name", None),
                "weights_hash": weights_hash(encoder.backbone) if encoder is not None else None,
            },
            "versions": software_versions(),
        }


def open_policy(checkpoint: Path) -> OpenedPolicy:
    """Load a policy and its processors on the CPU; adapters of its encoder are merged into the weights.

    Raises:
        UserError: The folder is no checkpoint, or its normalisation cannot be exported.
    """
    config = open_checkpoint(checkpoint)
    config.device = "cpu"
    policy = get_policy_class(config.type).from_pretrained(checkpoint, config=config)
    encoder = getattr(policy, "encoder", None)
    if isinstance(encoder, VisionEncoder):
        encoder.merge_adapters()
    processors = make_pre_post_processors(
        config, pretrained_path=str(checkpoint), preprocessor_overrides={"device_processor": {"device": "cpu"}}
    )
    if config.robot_state_feature is None:
        raise UserError(f"The policy in {checkpoint} reads no observation.state, which an artifact needs.")
    return OpenedPolicy(checkpoint, config, policy, processors)


def _mean_and_scale(
    pipeline: PolicyProcessorPipeline, step_class: type, key: str, kind: FeatureType
) -> tuple[Tensor, Tensor]:
    step: Any = next(step for step in pipeline.steps if isinstance(step, step_class))
    mode = step.norm_map.get(kind, NormalizationMode.IDENTITY)
    if mode is not NormalizationMode.MEAN_STD:
        raise UserError(f"{key} is normalised by {mode.value}; export knows MEAN_STD only.")
    statistics = step._tensor_stats[key]
    # LeRobot adds its epsilon when normalising only.
    epsilon = step.eps if step_class is NormalizerProcessorStep else 0.0
    return statistics["mean"].clone(), statistics["std"] + epsilon
