"""Simulated robot tasks on LeRobot's environment contract.

LeRobot imports every installed module named ``lerobot_env_*`` at start-up; importing this one registers
``--env.type=pixio_robosuite``, ``pixio_metaworld``, ``pixio_aloha``, ``pixio_pusht``, ``pixio_adroit`` and
``pixio_dmc``, ``--robot.type=pixio_sim``, and ids for `gymnasium.make` (`gymnasium_ids`), and loads no simulator. Where
LeRobot or gymnasium is not imported yet, which takes seconds, they are registered once it is: names of tasks and robots are
known without it.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

from wrapt import when_imported

from lerobot_env_pixio.rendering.frames import choose_gl

if TYPE_CHECKING:
    from lerobot_env_pixio.config_simulated_robot import SimulatedRobotConfig
    from lerobot_env_pixio.configuration import (
        AdroitEnvConfig,
        AlohaEnvConfig,
        DmcEnvConfig,
        MetaworldEnvConfig,
        PushTEnvConfig,
        RobosuiteEnvConfig,
    )

choose_gl()  # now, because MuJoCo reads MUJOCO_GL when it is first imported, wherever that happens

__all__ = [
    "AdroitEnvConfig",
    "AlohaEnvConfig",
    "DmcEnvConfig",
    "MetaworldEnvConfig",
    "PushTEnvConfig",
    "RobosuiteEnvConfig",
    "SimulatedRobotConfig",
]


@when_imported("lerobot.envs")
def _register_environments(lerobots: ModuleType) -> None:
    importlib.import_module(f"{__name__}.configuration")


@when_imported("gymnasium")
def _register_ids(gymnasium: ModuleType) -> None:
    importlib.import_module(f"{__name__}.gymnasium_ids").register_ids()


@when_imported("lerobot.robots")
def _register_robot(lerobots: ModuleType) -> None:
    importlib.import_module(f"{__name__}.config_simulated_robot")


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "config_simulated_robot" if name == "SimulatedRobotConfig" else "configuration"
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
