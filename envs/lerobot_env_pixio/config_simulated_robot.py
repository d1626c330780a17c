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
        episode_length: Steps after which an episode is over.
        seed: Of the first episode; every next one has the next seed.
        next_by_itself: Whether the next episode begins when one is over, while nobody records. Otherwise the robot stays
            where it is, and after a success it goes on, as a real one does.
        recording: Folder of the dataset that ``lerobot-record`` makes, the same as ``--dataset.root``: when the robot is
            disconnected, it adds what LeRobot's recorder does not ask for: success, seeds and the environment.
        by_deltas: Whether an action is called ``delta_x``, ``delta_y``, ``delta_z`` and ``gripper``, as ``keyboard_ee`` and
            ``gamepad`` send it. ``lerobot-record`` needs it with these; other tools do not.
        delta_scale: How much of the task's largest motion in one step a full deflection of such a device is.
    """

    env: str = "pixio_robosuite"
    task: str | None = None
    camera_names: list[str] | None = None
    image_size: int | None = None
    render_profile: str | None = None
    episode_length: int | None = None
    seed: int = 0
    next_by_itself: bool = False
    recording: str | None = None
    by_deltas: bool = False
    delta_scale: float = 0.3

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
