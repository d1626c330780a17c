"""Tasks of each simulator as gymnasium environments."""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lerobot_env_pixio.simulators.camera_env import CameraEnv

_CLASSES = {
    "pixio_robosuite": ("robosuite", "RobosuiteEnv"),
    "pixio_metaworld": ("metaworld", "MetaworldEnv"),
    "pixio_aloha": ("aloha", "AlohaEnv"),
    "pixio_pusht": ("pusht", "PushTEnv"),
    "pixio_adroit": ("adroit", "AdroitEnv"),
    "pixio_dmc": ("dmc", "DmcEnv"),
}

EXPERT_FIELDS = ("expert_noise", "expert_mistakes", "experts")
"""Of an environment's description: they say who demonstrates, and an environment itself does not know them."""


def environment_classes() -> "dict[str, type[CameraEnv]]":
    """Return the environments by their types; importing them loads no simulator."""
    modules = {kind: importlib.import_module(f"{__name__}.{module}") for kind, (module, _) in _CLASSES.items()}
    return {kind: getattr(modules[kind], name) for kind, (_, name) in _CLASSES.items()}


def check_names(env_type: str, fields: Mapping[str, Any]) -> None:
    """Check the fields of an environment's description without LeRobot and without its simulator, in a moment.

    Args:
        env_type: The environment's type; one that is not of this package is not checked.
        fields: All fields of the description.

    Raises:
        ValueError: A name is unknown (the message offers the nearest), or a value is refused.
        TypeError: A field is unknown, missing or of a wrong type.
    """
    if env_type in _CLASSES:
        module, name = _CLASSES[env_type]
        known = {key: value for key, value in fields.items() if key not in EXPERT_FIELDS}
        kind = getattr(importlib.import_module(f"{__name__}.{module}"), name)
        for task in kind.task_names(known.pop("task", None) or ""):
            kind(task=task, **known)


# Importing gymnasium registers the ids of all tasks, for which every module here is imported: before the first of them begins.
importlib.import_module("gymnasium")
