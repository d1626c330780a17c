"""Simulated robot tasks on LeRobot's environment contract.

LeRobot imports every installed module named ``lerobot_env_*`` at start-up; importing this one registers
``--env.type=pixio_robosuite`` and loads neither MuJoCo nor robosuite.
"""

from lerobot_env_pixio.configuration import RobosuiteEnvConfig
from lerobot_env_pixio.rendering import choose_gl

choose_gl()  # now, because MuJoCo reads MUJOCO_GL when it is first imported, wherever that happens

__all__ = ["RobosuiteEnvConfig"]
