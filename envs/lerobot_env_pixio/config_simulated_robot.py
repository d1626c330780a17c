"""`--robot.type=pixio_sim`: a simulated task as a LeRobot robot, for tools that know robots and no environments.

It ships in this distribution because LeRobot's tools import every installed ``lerobot_env_*`` as they do every
``lerobot_robot_*``: an install that has the tasks has the robot, and no fourth distribution is needed. LeRobot finds the
robot's class, which is heavier, in the module of this one's name without ``config_``.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lerobot.robots.config import RobotConfig

if TYPE_CHECKING:
    from lerobot_env_pixio.configuration import PixioEnvConfig


@RobotConfig.register_subclass("pixio_sim")
@dataclass(kw_only=True)
class SimulatedRobotConfig(RobotConfig):
    """A simulated task that is driven like a robot.

    The task's fields stand here one by one: one of LeRobot's own environments has a robot as a field, so that a robot
    with an environment as a field would nest without end when LeRobot lists the arguments of its tools.

    Attributes:
        env: Type of the environment, one of this package's.
        task: The simulator's name of the task; None takes the environment's own, as for all that follow.
        camera_names: Cameras of the robot.
        image_size: Height and width of a frame in pixels.
        render_profile: How it is rendered.
        episode_length: Steps after which an episode without success ends.
        seed: Of the first episode; every next one has the next seed.
    """

    env: str = "pixio_robosuite"
    task: str | None = None
    camera_names: list[str] | None = None
    image_size: int | None = None
    render_profile: str | None = None
    episode_length: int | None = None
    seed: int = 0

    def env_config(self) -> "PixioEnvConfig":
        """Return the config of the environment.

        Raises:
            ValueError: The environment is none of this package's, or a name is unknown.
        """
        # LeRobot's environments import its robots.
        from lerobot.envs import EnvConfig

        from lerobot_env_pixio.configuration import PixioEnvConfig

        ours = {name: kind for name, kind in EnvConfig.get_known_choices().items() if issubclass(kind, PixioEnvConfig)}
        if self.env not in ours:
            raise ValueError(f"pixio_sim has no environment {self.env!r}: valid names are {', '.join(sorted(ours))}")
        names = ("task", "camera_names", "image_size", "render_profile", "episode_length")
        given: dict[str, Any] = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return ours[self.env](**given)
