"""`--robot.type=pixio_sim`: a simulated task as a LeRobot robot, for tools that know robots and no environments.

It ships in this distribution because LeRobot's tools import every installed ``lerobot_env_*`` as they do every
``lerobot_robot_*``: an install that has the tasks has the robot, and no fourth distribution is needed. LeRobot finds the
robot's class, which is heavier, in the module of this one's name without ``config_``.
"""

from dataclasses import dataclass, field

from lerobot.envs import EnvConfig
from lerobot.robots.config import RobotConfig

from lerobot_env_pixio.configuration import RobosuiteEnvConfig


@RobotConfig.register_subclass("pixio_sim")
@dataclass(kw_only=True)
class SimulatedRobotConfig(RobotConfig):
    """A simulated task that is driven like a robot.

    Attributes:
        env: The task, one of this package's: ``--robot.env.type=pixio_robosuite --robot.env.task=Stack``.
        seed: Of the first episode; every next one has the next seed.
    """

    env: EnvConfig = field(default_factory=RobosuiteEnvConfig)
    seed: int = 0
