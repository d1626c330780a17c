"""Simulated robot tasks on LeRobot's environment contract.

LeRobot imports every installed module named ``lerobot_env_*`` at start-up; importing this one registers
``--env.type=pixio_robosuite`` and loads neither MuJoCo nor robosuite.
"""

from lerobot_env_pixio.configuration import RobosuiteEnvConfig

__all__ = ["RobosuiteEnvConfig"]
