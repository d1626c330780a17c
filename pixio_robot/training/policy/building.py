"""From a plain description of a policy to LeRobot's policy, for the features of a demonstration store."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig
from lerobot.policies import PreTrainedPolicy
from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors
from lerobot.processor import PolicyProcessorPipeline
from lerobot.utils.constants import ACTION, OBS_STATE
from lerobot.utils.import_utils import register_third_party_plugins

from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.common.settings import check_fields
from pixio_robot.demos import DemoStore
from pixio_robot.encoders import EncoderConfig


def check_policy(description: Mapping[str, Any], encoder: EncoderConfig) -> None:
    """Check everything about a policy that can be known before there are demonstrations.

    Raises:
        UserError: See `policy_config_from`.
    """
    _policy_config(description, encoder, device="cpu")


def policy_config_from(
    description: Mapping[str, Any], encoder: EncoderConfig, store: DemoStore, num_episodes: int | None = None
) -> PreTrainedConfig:
    """Build the config of a policy of ours.

    Args:
        description: `type` (for example `pixio_act`) and any fields of that policy's config.
        encoder: The encoder, whose fields become the policy's `encoder_*` fields.
        store: The demonstrations, whose features become the policy's, and their tasks, where there are several.
        num_episodes: How many of them, from the first, it is trained on; None for all.

    Raises:
        UserError: The type or a field is unknown (the nearest name is offered), a value is refused, or the
            demonstrations lack what the policy needs, or have a task that is none of the policy's.
    """
    tasks = list(dict.fromkeys(store.episode_tasks[:num_episodes]))
    given = description.get("tasks")
    if not given and len(tasks) > 1 and description.get("condition_on_task", True):
        description = {**description, "tasks": tasks}
    unknown = [task for task in tasks if given and task not in given]
    if unknown:
        raise UserError(
            f"{store.path} has demonstrations of {unknown[0]!r}, which is none of policy.tasks. "
            f"{nearest_name(unknown[0], given or ())}"
        )
    inputs = {key: PolicyFeature(FeatureType.VISUAL, (3, *store.features[key].shape[:2])) for key in store.image_keys}
    if OBS_STATE in store.features:
        inputs[OBS_STATE] = PolicyFeature(FeatureType.STATE, tuple(store.features[OBS_STATE].shape))
    if ACTION not in store.features:
        raise UserError(
            f"{store.path} has no {ACTION!r}, which is what a policy learns: record demonstrations with it."
        )
    return _policy_config(
        description,
        encoder,
        input_features=inputs,
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, tuple(store.features[ACTION].shape))},
        device="cuda" if torch.cuda.is_available() else "cpu",
    )


def _policy_config(description: Mapping[str, Any], encoder: EncoderConfig, **features: object) -> PreTrainedConfig:
    register_third_party_plugins()
    fields = dict(description)
    policy_type = fields.pop("type")
    known_types = [name for name, kind in PreTrainedConfig.get_known_choices().items() if stands_on_an_encoder(kind)]
    if policy_type not in known_types:
        raise UserError(f"Unknown policy type {policy_type!r}. {nearest_name(str(policy_type), known_types)}")
    config_class = PreTrainedConfig.get_choice_class(policy_type)
    check_fields(config_class, fields, "policy", f"Policy {policy_type!r}")
    known_fields = [field.name for field in dataclasses.fields(config_class) if field.init]
    encoder_fields = {f"encoder_{name}": value for name, value in dataclasses.asdict(encoder).items()}
    try:
        return make_policy_config(
            policy_type,
            **features,
            **{name: value for name, value in encoder_fields.items() if name in known_fields},
            **fields,
        )
    except (ValueError, NotImplementedError) as error:
        raise UserError(str(error)) from error


def stands_on_an_encoder(config: type[PreTrainedConfig] | PreTrainedConfig) -> bool:
    """Tell whether a policy takes one of our encoders, from this package or another: its config has the encoder's fields."""
    return hasattr(config, "encoder_name") and hasattr(config, "encoder_mode")


def build_policy(
    config: PreTrainedConfig, store: DemoStore, num_episodes: int | None = None
) -> tuple[PreTrainedPolicy, tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]]:
    """Return a new policy on its device, and its processors with the store's normalisation statistics.

    Args:
        config: The policy's config.
        store: The demonstrations.
        num_episodes: How many of them, from the first, the policy is trained on; None for all.

    Raises:
        UserError: See `pixio_robot.encoders.VisionEncoder`.
    """
    policy = get_policy_class(config.type)(config).to(config.device)
    statistics = {
        key: {name: torch.as_tensor(value) for name, value in values.items()}
        for key, values in store.statistics(num_episodes).items()
    }
    return policy, make_pre_post_processors(config, dataset_stats=statistics)
