"""Starting a training from the weights of a checkpoint, ours or one that `lerobot-train` made of a policy of ours."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies import PreTrainedPolicy
from torch import Tensor

from pixio_robot.common.errors import UserError
from pixio_robot.encoders import EncoderConfig, VisionEncoder
from pixio_robot.encoders.adapters import base_keys
from pixio_robot.evaluation.checkpoints import open_checkpoint
from pixio_robot.training.policy.building import stands_on_an_encoder

_ENCODER = "encoder."
_SET_BY_DATA_AND_MACHINE = {field.name for field in dataclasses.fields(PreTrainedConfig)} - {"n_obs_steps"}


def described_by(
    checkpoint: Path, policy_changes: Mapping[str, Any], encoder_changes: Mapping[str, Any]
) -> tuple[dict[str, Any], EncoderConfig]:
    """Return a checkpoint's policy and encoder in the words of a `PolicyJob`, with some fields changed.

    Args:
        checkpoint: A `pretrained_model` folder.
        policy_changes: Fields of the policy's config that shall have other values.
        encoder_changes: Fields of `EncoderConfig`, likewise: `mode` above all.

    Raises:
        UserError: There is no checkpoint, or it is not of a policy of ours.
    """
    config: Any = open_checkpoint(checkpoint)
    if not stands_on_an_encoder(config):
        raise UserError(
            f"{checkpoint} holds a policy of type {config.type!r}, which has its own image encoder: start from a checkpoint "
            f"of pixio_act, pixio_diffusion or pixio_bc."
        )
    description: dict[str, Any] = {"type": config.type}
    for field in dataclasses.fields(config):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        value = getattr(config, field.name)
        foreign = field.name in _SET_BY_DATA_AND_MACHINE or field.name.startswith("encoder_") or not field.init
        if foreign or value == default:
            continue
        if field.name == "normalization_mapping":
            raise UserError(
                f"{checkpoint} normalises by {value}, but {config.type} is trained here with {default}: "
                f"train it on with lerobot-train --policy.path={checkpoint}."
            )
        description[field.name] = list(value) if isinstance(value, tuple) else value
    encoder = EncoderConfig.from_prefixed(config)
    encoder = dataclasses.replace(encoder, lora_targets=list(encoder.lora_targets))
    return description | dict(policy_changes), dataclasses.replace(encoder, **encoder_changes)


def load_starting_point(policy: PreTrainedPolicy, checkpoint: Path) -> None:
    """Load a checkpoint's weights into a policy whose encoder may be in another mode.

    LoRA adapters of the checkpoint are merged into its encoder where the policy has none, or others; new adapters stay new.

    Raises:
        UserError: The weights do not fit: other tasks, cameras, sizes or fields, or adapters where the policy has none.
    """
    config: Any = policy.config
    before: Any = open_checkpoint(checkpoint)
    if config.tasks and not before.tasks:
        named = ", ".join(map(repr, config.tasks))
        raise UserError(
            f"{checkpoint} was trained on one task, and these demonstrations have {len(config.tasks)} ({named}): "
            f"policy.condition_on_task=false takes them for one."
        )
    state = safetensors.torch.load_file(checkpoint / "model.safetensors")
    trained, wanted = (EncoderConfig.from_prefixed(one) for one in (before, config))
    if trained.mode == "lora" and _adapters(trained) != _adapters(wanted):
        frames = next(iter(config.image_features.values()))
        state = _with_merged_adapters(state, VisionEncoder(trained, from_checkpoint=True, frame_size=frames.shape[-2:]))
    for name, key in base_keys(policy.get_submodule("encoder.backbone")).items():
        prefix = "encoder.backbone."
        if prefix + name in state:  # weights that had no adapters beside them until now
            state[prefix + key] = state.pop(prefix + name)
    try:
        missing, unexpected = policy.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise _does_not_fit(checkpoint, policy, str(error).splitlines()[1].strip()) from error
    missing = [name for name in missing if "lora_" not in name]
    for names, what in ((missing, "it lacks"), (unexpected, "the policy has no")):
        if names:
            raise _does_not_fit(checkpoint, policy, f"{what} {names[0]} and {len(names) - 1} others")


def _adapters(encoder: EncoderConfig) -> tuple[Any, ...]:
    return encoder.mode, encoder.lora_rank, encoder.lora_alpha, tuple(encoder.lora_targets)


def _with_merged_adapters(state: Mapping[str, Tensor], encoder: VisionEncoder) -> dict[str, Tensor]:
    """Return a policy's state with the weights that its encoder and its adapters make together."""
    own = {key.removeprefix(_ENCODER): value for key, value in state.items() if key.startswith(_ENCODER)}
    encoder.load_state_dict(own)
    encoder.merge_adapters()
    merged = {f"{_ENCODER}{key}": value for key, value in encoder.state_dict().items()}
    return {key: value for key, value in state.items() if not key.startswith(_ENCODER)} | merged


def _does_not_fit(checkpoint: Path, policy: PreTrainedPolicy, reason: str) -> UserError:
    cameras = ", ".join(policy.config.image_features)
    return UserError(
        f"The weights of {checkpoint} do not fit a policy for these demonstrations ({cameras}) and fields: {reason}; "
        f"start from it with the cameras, sizes and fields that it was trained with."
    )
