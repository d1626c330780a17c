"""Simulated robot tasks on LeRobot's environment contract.

LeRobot imports every installed module named ``lerobot_env_*`` at start-up; importing this one registers
``--env.type=pixio_robosuite``, ``pixio_metaworld``, ``pixio_aloha`` and ``pixio_pusht``, and ``--robot.type=pixio_sim``,
and loads no simulator.
"""

from lerobot_env_pixio.config_simulated_robot import SimulatedRobotConfig
from lerobot_env_pixio.configuration import AlohaEnvConfig, MetaworldEnvConfig, PushTEnvConfig, RobosuiteEnvConfig
from lerobot_env_pixio.rendering.frames import choose_gl

choose_gl()  # now, because MuJoCo reads MUJOCO_GL when it is first imported, wherever that happens

__all__ = ["AlohaEnvConfig", "MetaworldEnvConfig", "PushTEnvConfig", "RobosuiteEnvConfig", "SimulatedRobotConfig"]
