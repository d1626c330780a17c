"""What an export needs to know of a policy in LeRobot's checkpoint format; the one module here that knows LeRobot.

Shape letters: B batch, H and W image size, S state size, A action size.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from lerobot.configs import FeatureType, NormalizationMode, PreTrainedConfig
from lerobot.envs import EnvConfig
from lerobot.envs.utils import preprocess_observation
from lerobot.policies import PreTrainedPolicy
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.processor import NormalizerProcessorStep, PolicyProcessorPipeline, UnnormalizerProcessorStep
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE
from torch import Tensor

from pixio_robot.common.errors import UserError
from pixio_robot.common.versions import software_versions
from pixio_robot.deployment.export.shell import Normalisation
from pixio_robot.encoders import VisionEncoder, weights_hash
from pixio_robot.environments import env_config_from
from pixio_robot.evaluation.checkpoints import RUN_FILE, open_checkpoint

_DIFFUSION = "pixio_diffusion"


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
    def observation_steps(self) -> int:
        """Number O of observation steps that the policy reads."""
        return int(self.config.n_obs_steps)

    @property
    def state(self) -> Normalisation:
        """How the state (S,) is normalised."""
        return self._normalisation(0, NormalizerProcessorStep, OBS_STATE, FeatureType.STATE)

    @property
    def action(self) -> Normalisation:
        """How the action (A,) was normalised, to be undone."""
        return self._normalisation(1, UnnormalizerProcessorStep, ACTION, FeatureType.ACTION)

    @property
    def noise_shape(self) -> tuple[int, int] | None:
        """Horizon and action size of the noise that the policy samples from; None for one that does not sample."""
        if self.config.type != _DIFFUSION:
            return None
        config: Any = self.config
        return int(config.horizon), int(config.action_feature.shape[0])

    @torch.no_grad()
    def eager(self, observed: Mapping[str, Tensor]) -> Tensor:
        """Return the action chunk (B, horizon, A) along the very path that evaluation takes.

        Args:
            observed: Raw frames of each camera and the state as an artifact takes them, and the noise if there is one.
        """
        steps = self.observation_steps
        rows = {
            key: observed[key].flatten(0, 1) if steps > 1 else observed[key] for key in (*self.image_sizes, OBS_STATE)
        }
        cameras: dict[str, Any] = {key.removeprefix(f"{OBS_IMAGES}."): rows[key].numpy() for key in self.image_sizes}
        raw: dict[str, Any] = {"pixels": cameras, "agent_pos": rows[OBS_STATE].numpy()}
        batch = preprocess_observation(raw)
        if steps > 1:
            batch = {key: value.unflatten(0, (-1, steps)) for key, value in batch.items()}
        noise = {} if self.noise_shape is None else {"noise": observed["noise"]}
        chunk = self.policy.predict_action_chunk(self.processors[0](batch), **noise)
        return self.processors[1](chunk)

    def metadata(self) -> dict[str, Any]:
        """Return what the artifact's metadata says of the policy."""
        config: Any = self.config
        trained = self._trained()
        encoder: Any = self.policy.encoder
        return {
            "kind": "policy",
            "policy": config.type,
            "state": {
                "key": OBS_STATE,
                "size": config.robot_state_feature.shape[0],
                "names": _as_list(getattr(self._simulated(), "state_names", None)),
            },
            "action": {"size": config.action_feature.shape[0], **self._action_space()},
            "noise": None if self.noise_shape is None else {"key": "noise", "shape": list(self.noise_shape)},
            "observation_horizon": self.observation_steps,
            "executed_actions": config.n_action_steps,
            "control_rate_hz": (trained.get("env") or {}).get("fps"),
            "sampling_steps": None if self.noise_shape is None else _diffusion(self.policy).num_inference_steps,
            "normalisation": {
                key: {"mode": self._mode(kind), **{name: part.tolist() for name, part in parts._asdict().items()}}
                for key, kind, parts in (
                    (OBS_STATE, FeatureType.STATE, self.state),
                    (ACTION, FeatureType.ACTION, self.action),
                )
            },
            "encoder": {"name": config.encoder_name, "weights_hash": weights_hash(encoder.backbone)},
            "tokens": None,
            "env": trained.get("env") or None,
            "versions": software_versions(),
        }

    def _trained(self) -> dict[str, Any]:
        run_file = self.checkpoint / RUN_FILE
        return json.loads(run_file.read_text(encoding="utf-8")) if run_file.is_file() else {}

    def _simulated(self) -> Any:  # noqa: ANN401 (any simulator's environment)
        """Return the environment that it was trained in, not started; None for a real robot, and for other packages'."""
        env = self._trained().get("env")
        if not env or env.get("type") not in EnvConfig.get_known_choices():
            return None
        make_env = getattr(env_config_from(env), "make_env", None)
        return None if make_env is None else make_env()

    def _action_space(self) -> dict[str, Any]:
        """Return what an action is, and the simulated robot's limits or what a real one's demonstrations stayed within."""
        env = self._simulated()
        if env is not None:
            return {
                "names": _as_list(getattr(env, "action_names", None)),
                "space": getattr(env, "control_mode", None),
                "minimum": env.action_space.low.tolist(),
                "maximum": env.action_space.high.tolist(),
                "limits_from": "environment",
            }
        step: Any = next(step for step in self.processors[1].steps if isinstance(step, UnnormalizerProcessorStep))
        statistics = step._tensor_stats.get(ACTION, {})
        if "min" not in statistics or "max" not in statistics:
            raise UserError(
                f"The statistics in {self.checkpoint} have no minimum and maximum of the action, which limit a robot: "
                f"take them from the dataset with lerobot's dataset tools, and train again."
            )
        low, high = statistics["min"].flatten().tolist(), statistics["max"].flatten().tolist()
        return {"names": None, "space": None, "minimum": low, "maximum": high, "limits_from": "demonstrations"}

    def _mode(self, kind: FeatureType) -> str:
        modes: Any = getattr(self.config, "normalization_mapping", {})
        return NormalizationMode(modes.get(kind.value, NormalizationMode.IDENTITY)).value

    def _normalisation(self, pipeline: int, step_class: type, key: str, kind: FeatureType) -> Normalisation:
        step: Any = next(step for step in self.processors[pipeline].steps if isinstance(step, step_class))
        mode = step.norm_map.get(kind, NormalizationMode.IDENTITY)
        statistics = {name: value.clone() for name, value in step._tensor_stats.get(key, {}).items()}
        return _affine(mode, statistics, step.eps, key, normalises=step_class is NormalizerProcessorStep)


def open_policy(checkpoint: Path, sampling_steps: int | None = None) -> OpenedPolicy:
    """Load a policy and its processors on the CPU; adapters of its encoder are merged into the weights.

    A diffusion policy samples with DDIM, which adds noise at no step but the first, and gives all actions of its
    horizon from the present step on.

    Args:
        checkpoint: A `pretrained_model` folder in LeRobot's format.
        sampling_steps: DDIM steps of a diffusion policy; None keeps the policy's own number.

    Raises:
        UserError: The folder is no checkpoint of a policy of ours, its normalisation cannot be exported, or the
            number of steps does not fit it.
    """
    config: Any = open_checkpoint(checkpoint)
    config.device = "cpu"
    policy: Any = get_policy_class(config.type).from_pretrained(checkpoint, config=config)
    encoder = getattr(policy, "encoder", None)
    if not isinstance(encoder, VisionEncoder):
        raise UserError(
            f"{checkpoint} holds a policy of type {config.type}, which export does not know: it takes pixio_act, "
            f"pixio_diffusion and pixio_bc."
        )
    encoder.merge_adapters()
    processors = make_pre_post_processors(
        config, pretrained_path=str(checkpoint), preprocessor_overrides={"device_processor": {"device": "cpu"}}
    )
    if config.robot_state_feature is None:
        raise UserError(f"The policy in {checkpoint} reads no observation.state, which an artifact needs.")
    if config.type == _DIFFUSION:
        _sample_with_ddim(policy, sampling_steps)
    elif sampling_steps is not None:
        raise UserError(f"A {config.type} policy does not sample: leave sampling_steps out.")
    return OpenedPolicy(checkpoint, config, policy, processors)


def _sample_with_ddim(policy: PreTrainedPolicy, sampling_steps: int | None) -> None:
    model = _diffusion(policy)
    most = int(model.noise_scheduler.config.num_train_timesteps)
    steps = model.num_inference_steps if sampling_steps is None else sampling_steps
    if not 1 <= steps <= most:
        raise UserError(f"sampling_steps={steps} must lie between 1 and {most}, the noise levels of its training.")
    scheduler: Any = _FixedDDIM.from_config(model.noise_scheduler.config)
    scheduler.set_timesteps(steps)
    model.noise_scheduler = scheduler
    model.num_inference_steps = steps
    # The model's own copy of the config: what the policy executes of a chunk stays as it is.
    model.config.n_action_steps = model.config.horizon - model.config.n_obs_steps + 1


class _FixedDDIM(DDIMScheduler):
    """DDIM whose noise levels are plain numbers before it runs, since torch.export cannot look into tensors."""

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:  # noqa: ANN401 (as diffusers has it)
        if num_inference_steps != self.num_inference_steps:
            super().set_timesteps(num_inference_steps, device)
            self.timesteps: Any = self.timesteps.tolist()


def _diffusion(policy: Any) -> Any:  # noqa: ANN401 (LeRobot's policies share no type that has it)
    return policy.diffusion


def _affine(
    mode: NormalizationMode, statistics: dict[str, Tensor], epsilon: float, key: str, *, normalises: bool
) -> Normalisation:
    """Write one of LeRobot's normalisations as (x − offset) / scale + shift, to the last bit of its own formula."""
    if mode is NormalizationMode.IDENTITY or not statistics:
        return Normalisation(torch.zeros(1), torch.ones(1), torch.zeros(1))
    if mode is NormalizationMode.MEAN_STD:
        # LeRobot adds its epsilon when normalising only.
        scale = statistics["std"] + (epsilon if normalises else 0.0)
        return Normalisation(statistics["mean"], scale, torch.zeros_like(scale))
    ends = {
        NormalizationMode.MIN_MAX: ("min", "max"),
        NormalizationMode.QUANTILES: ("q01", "q99"),
        NormalizationMode.QUANTILE10: ("q10", "q90"),
    }.get(mode)
    if ends is None:
        raise UserError(f"{key} is normalised by {mode.value}, which export does not know.")
    low, high = (statistics[end] for end in ends)
    span = torch.where(high == low, torch.full_like(low, epsilon), high - low)
    return Normalisation(low, span / 2, -torch.ones_like(span))


def _as_list(names: Sequence[str] | None) -> list[str] | None:
    return None if names is None else list(names)
