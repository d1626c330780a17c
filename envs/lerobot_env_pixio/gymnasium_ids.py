"""`gymnasium.make("pixio_robosuite/Lift-v0")`: every task under an id of its own, for code that knows gymnasium alone."""

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lerobot_env_pixio.simulators.camera_env import CameraEnv

_VERSION = re.compile(r"-v\d+$")


def register_ids() -> None:
    """Register `<type>/<task>` for every task; one without a version in its name, as Meta-World's have, gets `-v0`."""
    import gymnasium  # here: this module is what importing gymnasium imports

    from lerobot_env_pixio.simulators import environment_classes

    for env_type, kind in environment_classes().items():
        for task in kind.tasks:
            gymnasium.register(
                f"{env_type}/{task if _VERSION.search(task) else f'{task}-v0'}",
                entry_point=f"{__name__}:make",
                kwargs={"env_type": env_type, "task": task},
            )


def make(env_type: str, task: str, render_mode: str = "rgb_array", **fields: Any) -> "CameraEnv":  # noqa: ANN401 (the config's)
    """Return a task with the defaults of its LeRobot config.

    Args:
        env_type: As in `--env.type`.
        task: The simulator's name of it.
        render_mode: `rgb_array` alone.
        fields: Further fields of the config: `camera_names`, `image_size`, `render_profile`, `episode_length`, …

    Raises:
        ValueError: A name or a value is unknown.
    """
    from lerobot.envs import EnvConfig

    if render_mode != "rgb_array":
        raise ValueError(
            f"{env_type} renders arrays, and nothing on a screen: render_mode='rgb_array', not {render_mode!r}"
        )
    config: Any = EnvConfig.get_choice_class(env_type)(task=task, **fields)
    return config.make_env()
