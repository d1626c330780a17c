"""What an export needs to know of a policy in LeRobot's checkpoint format; the one module here that knows LeRobot.

Shape letters: B batch, H and W image size, S state size, A action size.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from lerobot.configs import FeatureType, NormalizationMode
from lerobot.envs import EnvConfig
from lerobot.envs.utils import preprocess_observation
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.processor import NormalizerProcessorStep, PolicyProcessorPipeline, UnnormalizerProcessorStep
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE
from torch import Tensor

from pixio_robot.common.errors import UserError
from pixio_robot.common.noise import chunk_noise
from pixio_robot.common.versions import software_versions
from pixio_robot.common.worlds import RUN_FILE
from pixio_robot.deployment.export.shell import IDENTITY, Normalisation, ShellLayout
from pixio_robot.encoders import VisionEncoder, weights_hash
from pixio_robot.environments import env_config_from
from pixio_robot.evaluation.checkpoints import open_checkpoint

_DIFFUSION = "pixio_diffusion"


@dataclass(frozen=True)
class OpenedPolicy:
    """A policy with its processors, on the CPU, and what the artifact's shell needs of them."""

    checkpoint: Path
    config: Any
    policy: Any
    processors: tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]
    names: Mapping[str, list[str]] = field(default_factory=dict)
    """What numbers of state and action are, where the checkpoint does not say it."""

    @cached_property
    def layout(self) -> ShellLayout:
        """What goes into the policy and what comes out; a policy that samples takes noise (horizon, A)."""
        config = self.config
        return ShellLayout(
            image_sizes={key: tuple(feature.shape[1:]) for key, feature in config.image_features.items()},
            observation_steps=config.n_obs_steps,
            state=_affine(self._normaliser, OBS_STATE, FeatureType.STATE),
            action=_affine(self._unnormaliser, ACTION, FeatureType.ACTION),
            noise_shape=(config.horizon, config.action_feature.shape[0]) if config.type == _DIFFUSION else None,
            tasks=len(config.tasks),
        )

    @property
    def _normaliser(self) -> NormalizerProcessorStep:
        return next(step for step in self.processors[0].steps if isinstance(step, NormalizerProcessorStep))

    @property
    def _unnormaliser(self) -> UnnormalizerProcessorStep:
        return next(step for step in self.processors[1].steps if isinstance(step, UnnormalizerProcessorStep))

    def observed(self, observations: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
        """Return of real observations (N, [O,] …) what the policy reads, noise by a seed if it takes any, and its tasks in turn.

        Raises:
            UserError: One is missing, or frames have another size or history.
        """
        layout = self.layout
        keys = (*layout.image_sizes, OBS_STATE)
        advice = "give demonstrations of the same robot and cameras (frames=…)"
        missing = [key for key in keys if key not in observations]
        if missing:
            raise UserError(
                f"The frames given for the check lack {', '.join(missing)}, which the policy reads; {advice}."
            )
        history = (layout.observation_steps,) if layout.observation_steps > 1 else ()
        for key, size in layout.image_sizes.items():
            found, trained = tuple(observations[key].shape[1:]), (*history, *size, 3)
            if found != trained:
                raise UserError(
                    f"{key} of the frames given for the check is {found}, but the policy was trained on {trained}; "
                    f"{advice}."
                )
        observed = {key: observations[key] for key in keys}
        if layout.noise_shape is not None:
            drawn = [chunk_noise(layout.noise_shape, seed, chunk) for chunk in range(len(observed[OBS_STATE]))]
            observed["noise"] = torch.from_numpy(np.stack(drawn))
        if layout.tasks:  # all of them, whichever the observations are of
            observed["task"] = torch.arange(len(observed[OBS_STATE])) % layout.tasks
        return observed

    @torch.no_grad()
    def eager(self, observed: Mapping[str, Tensor]) -> Tensor:
        """Return the action chunk (B, horizon, A) along the very path that evaluation takes.

        Args:
            observed: Raw frames of each camera and the state as an artifact takes them, and the noise if there is one.
        """
        steps = self.layout.observation_steps
        rows = {
            key: observed[key].flatten(0, 1) if steps > 1 else observed[key]
            for key in (*self.layout.image_sizes, OBS_STATE)
        }
        cameras: dict[str, Any] = {
            key.removeprefix(f"{OBS_IMAGES}."): rows[key].numpy() for key in self.layout.image_sizes
        }
        raw: dict[str, Any] = {"pixels": cameras, "agent_pos": rows[OBS_STATE].numpy()}
        batch: dict[str, Any] = preprocess_observation(raw)
        if steps > 1:
            batch = {key: value.unflatten(0, (-1, steps)) for key, value in batch.items()}
        noise = {} if self.layout.noise_shape is None else {"noise": observed["noise"]}
        if self.layout.tasks:
            batch["task"] = [self.config.tasks[number] for number in observed["task"].tolist()]
        chunk = self.policy.predict_action_chunk(self.processors[0](batch), **noise)
        return self.processors[1](chunk)

    def metadata(self) -> dict[str, Any]:
        """Return what the artifact's metadata says of the policy."""
        config, layout = self.config, self.layout
        run_file = self.checkpoint / RUN_FILE
        trained = json.loads(run_file.read_text(encoding="utf-8")) if run_file.is_file() else {}
        env, names = _simulated(trained.get("env")), trained.get("names") or self.names
        normalised = (
            (OBS_STATE, FeatureType.STATE, self._normaliser, layout.state),
            (ACTION, FeatureType.ACTION, self._unnormaliser, layout.action),
        )
        return {
            "kind": "policy",
            "policy": config.type,
            "state": {
                "key": OBS_STATE,
                "size": config.robot_state_feature.shape[0],
                "names": names.get(OBS_STATE) or _as_list(getattr(env, "state_names", None)),
            },
            "action": {
                "size": config.action_feature.shape[0],
                "names": names.get(ACTION) or _as_list(getattr(env, "action_names", None)),
                **self._action_space(env),
            },
            "noise": None if layout.noise_shape is None else {"key": "noise", "shape": list(layout.noise_shape)},
            "tasks": list(config.tasks) or None,
            "observation_horizon": layout.observation_steps,
            "executed_actions": config.n_action_steps,
            "control_rate_hz": (trained.get("env") or trained).get("fps"),
            "sampling_steps": None if layout.noise_shape is None else self.policy.diffusion.num_inference_steps,
            "normalisation": {
                key: {
                    "mode": _mode(step, kind).value,
                    **{name: part.tolist() for name, part in parts._asdict().items()},
                }
                for key, kind, step, parts in normalised
                if parts is not None
            },
            "encoder": {"name": config.encoder_name, "weights_hash": weights_hash(self.policy.encoder.backbone)},
            "env": trained.get("env") or None,
            "versions": software_versions(),
        }

    def _action_space(self, env: Any) -> dict[str, Any]:  # noqa: ANN401 (any simulator's environment)
        """Return what an action is, and the simulated robot's limits or what a real one's demonstrations stayed within."""
        if env is not None:
            return {
                "space": getattr(env, "control_mode", None),
                "minimum": env.action_space.low.tolist(),
                "maximum": env.action_space.high.tolist(),
                "limits_from": "environment",
            }
        statistics = self._unnormaliser._tensor_stats.get(ACTION, {})
        if "min" not in statistics or "max" not in statistics:
            raise UserError(
                f"The statistics in {self.checkpoint} have no minimum and maximum of the action, which limit a robot: "
                f"take them from the dataset with lerobot's dataset tools, and train again."
            )
        low, high = statistics["min"].flatten().tolist(), statistics["max"].flatten().tolist()
        return {"space": None, "minimum": low, "maximum": high, "limits_from": "demonstrations"}


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
        _sample_with_ddim(policy.diffusion, sampling_steps)
    elif sampling_steps is not None:
        raise UserError(f"A {config.type} policy does not sample: leave sampling_steps out.")
    return OpenedPolicy(checkpoint, config, policy, processors)


def _sample_with_ddim(model: Any, sampling_steps: int | None) -> None:  # noqa: ANN401 (LeRobot's diffusion model)
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


def _simulated(env: Mapping[str, Any] | None) -> Any:  # noqa: ANN401 (any simulator's environment)
    """Return the environment of a training, not started; None for a real robot, and for other packages'."""
    if not env or env.get("type") not in EnvConfig.get_known_choices():
        return None
    make_env = getattr(env_config_from(env), "make_env", None)
    return None if make_env is None else make_env()


def _mode(step: Any, kind: FeatureType) -> NormalizationMode:  # noqa: ANN401 (both of LeRobot's steps)
    return NormalizationMode(step.norm_map.get(kind, NormalizationMode.IDENTITY))


def _affine(step: Any, key: str, kind: FeatureType) -> Normalisation:  # noqa: ANN401
    """Write one of LeRobot's normalisations as (x − offset) / scale + shift, to the last bit of its own formula."""
    mode = _mode(step, kind)
    statistics = {name: value.clone() for name, value in step._tensor_stats.get(key, {}).items()}
    if mode is NormalizationMode.IDENTITY or not statistics:
        return IDENTITY
    if mode is NormalizationMode.MEAN_STD:
        # LeRobot adds its epsilon when normalising only.
        scale = statistics["std"] + (step.eps if isinstance(step, NormalizerProcessorStep) else 0.0)
        return Normalisation(statistics["mean"], scale, torch.zeros_like(scale))
    ends = {
        NormalizationMode.MIN_MAX: ("min", "max"),
        NormalizationMode.QUANTILES: ("q01", "q99"),
        NormalizationMode.QUANTILE10: ("q10", "q90"),
    }.get(mode)
    if ends is None:
        raise UserError(f"{key} is normalised by {mode.value}, which export does not know.")
    low, high = (statistics[end] for end in ends)
    span = torch.where(high == low, torch.full_like(low, step.eps), high - low)
    return Normalisation(low, span / 2, -torch.ones_like(span))


def _as_list(names: Sequence[str] | None) -> list[str] | None:
    return None if names is None else list(names)
