"""From a plain description of an environment to LeRobot's `EnvConfig`, and back.

LeRobot is imported when an environment is made: a misspelt name is answered before.
"""

import functools
import importlib
import importlib.metadata
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator

from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.common.settings import check_fields

if TYPE_CHECKING:
    from lerobot.envs import EnvConfig

logger = logging.getLogger(__name__)

# LeRobot finds a plugin with environments by this beginning of its distribution's name.
_PLUGIN_PREFIX = "lerobot_env_"

# What an environment config derives from its other fields; it is computed again, never described.
_DERIVED_FIELDS = ("features", "features_map")


def _with_known_names(description: dict[str, Any]) -> dict[str, Any]:
    """Check the names that our own environments know without LeRobot and simulators; `env_config_from` checks the rest."""
    try:
        from lerobot_env_pixio.simulators import check_names
    except ImportError:  # other environments may be installed
        return description
    fields = dict(description)
    if "type" not in fields:  # fields of an environment that is not known yet
        return description
    try:
        check_names(fields.pop("type"), fields)
    except ValueError as error:
        raise UserError(str(error)) from error
    except TypeError:
        pass
    return description


EnvDescription = Annotated[dict[str, Any], AfterValidator(_with_known_names)]
"""`type`, under which LeRobot knows the environment, such as pixio_robosuite, and any fields of that environment's config; or
the fields alone in which one differs that is known otherwise (see `env_config_meant`)."""


def env_config_from(description: Mapping[str, Any]) -> "EnvConfig":
    """Build the environment config of any installed LeRobot environment.

    Args:
        description: `type` (the name under which LeRobot knows the environment, e.g. `pixio_robosuite`) and
            any fields of that environment's config.

    Raises:
        UserError: The type or a field is unknown (the nearest name is offered), or a value is refused by the
            environment.
    """
    from lerobot.envs.factory import make_env_config

    fields = dict(description)
    if "type" not in fields:
        raise UserError("The environment has no 'type': name one, for example 'pixio_robosuite'.")
    env_type = fields.pop("type")
    known_types = known_environments()
    if env_type not in known_types:
        raise UserError(f"Unknown environment type {env_type!r}. {nearest_name(str(env_type), known_types)}")
    check_fields(known_types[env_type], fields, "env", f"Environment {env_type!r}")
    try:
        return make_env_config(env_type, **fields)
    except ValueError as error:
        raise UserError(str(error)) from error


def env_config_meant(given: Mapping[str, Any], noted: Mapping[str, Any] | None, source: str) -> "EnvConfig":
    """Build the environment that a command means: the one that it names, or that of a training or recording.

    Args:
        given: What the command says: a whole description, or single fields that shall differ, or nothing.
        noted: Description of the environment that the policy or the recording comes from; nothing where none is known.
        source: What comes from there, at the beginning of a sentence.

    Raises:
        UserError: Neither names one; or see `env_config_from`.
    """
    if "type" not in given and not noted:
        raise UserError(
            f"{source} does not say which simulation it comes from: name one with env=… (uv run scripts/list.py tasks)."
        )
    return env_config_from(given if "type" in given else {**(noted or {}), **given})


def known_environments() -> dict[str, type["EnvConfig"]]:
    """Return the configs of all installed environments by the types under which LeRobot knows them."""
    from lerobot.envs import EnvConfig

    _register_environments()
    return dict(EnvConfig.get_known_choices())


@functools.cache
def _register_environments() -> None:
    """Import LeRobot's plugins as its `register_third_party_plugins` does, but only those with environments.

    Those with policies take seconds to load, and collecting demonstrations needs none.
    """
    names = {distribution.metadata["Name"] or "" for distribution in importlib.metadata.distributions()}
    for name in sorted(names):
        if name.startswith(_PLUGIN_PREFIX):
            try:
                importlib.import_module(name)
            except Exception:  # somebody else's plugin; LeRobot goes on without it, too
                logger.exception("The environment plugin %s cannot be imported.", name)


def describe_env(env_config: "EnvConfig") -> dict[str, Any]:
    """Describe an environment by its type and fields, ready for JSON.

    `env_config_from` turns the description back into an equal config.
    """
    import draccus
    from lerobot.envs import EnvConfig

    described = draccus.encode(env_config, EnvConfig)
    return {name: value for name, value in described.items() if name not in _DERIVED_FIELDS}
