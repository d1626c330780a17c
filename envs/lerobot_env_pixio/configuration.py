"""`--env.type=pixio_robosuite`: robosuite tasks for `lerobot-eval` and for our own training and evaluation."""

import functools
from dataclasses import dataclass, field
from typing import Any

import gymnasium
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.envs.utils import _LazyAsyncVectorEnv
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from lerobot_env_pixio.experts import EXPERTS, Expert
from lerobot_env_pixio.robosuite_env import RobosuiteEnv
from lerobot_env_pixio.tasks import ROBOTS


@EnvConfig.register_subclass("pixio_robosuite")
@dataclass
class RobosuiteEnvConfig(EnvConfig):
    """A robosuite task on LeRobot's environment contract.

    Attributes:
        task: robosuite's name of the task.
        fps: Control rate in Hz.
        robot: robosuite's name of the robot.
        camera_names: Cameras that the policy sees.
        image_size: Height and width of a camera frame in pixels.
        render_profile: ``standard`` as robosuite ships, or ``fast`` without shadows, reflections and multisampling.
        episode_length: Steps after which an episode without success ends.
        perturbation: A change of looks drawn anew for every episode, for evaluation: ``light``, ``camera``,
            ``table_texture`` or ``table_colour``; ``none`` shows the task as it is.

    Raises:
        ValueError: A name is unknown; the message offers the nearest valid one.
    """

    task: str | None = "Lift"
    fps: int = 20
    robot: str = "Panda"
    camera_names: list[str] = field(default_factory=lambda: ["agentview", "robot0_eye_in_hand"])
    image_size: int = 128
    render_profile: str = "fast"
    episode_length: int = 150
    perturbation: str = "none"

    def __post_init__(self) -> None:
        """Check the names and derive LeRobot's features from them."""
        self.make_env()  # nothing is simulated yet: this only checks the names
        robot = ROBOTS[self.robot]
        frame = PolicyFeature(FeatureType.VISUAL, (self.image_size, self.image_size, 3))
        images = {f"{OBS_IMAGES}.{camera}": frame for camera in self.camera_names}
        self.features = {
            ACTION: PolicyFeature(FeatureType.ACTION, (robot.action_size,)),
            "agent_pos": PolicyFeature(FeatureType.STATE, (robot.state_size,)),
            **images,
        }
        self.features_map = {ACTION: ACTION, "agent_pos": OBS_STATE, **{key: key for key in images}}

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """Arguments of `RobosuiteEnv`."""
        return {
            "task": self.task,
            "robot": self.robot,
            "camera_names": tuple(self.camera_names),
            "image_size": self.image_size,
            "render_profile": self.render_profile,
            "episode_length": self.episode_length,
            "fps": self.fps,
            "perturbation": self.perturbation,
        }

    def make_env(self) -> RobosuiteEnv:
        """Return one environment, which builds its simulation on the first reset."""
        return RobosuiteEnv(**self.gym_kwargs)

    def make_expert(self, seed: int) -> Expert:
        """Return a scripted demonstrator for the task, whose recorded noise follows from the seed.

        Args:
            seed: One for each episode: the expert's `reset` starts the same noise again.
        """
        assert self.task in EXPERTS, f"no expert for {self.task}"
        return EXPERTS[self.task](seed)

    def create_envs(
        self, n_envs: int, use_async_envs: bool = False
    ) -> dict[str, dict[int, gymnasium.vector.VectorEnv | _LazyAsyncVectorEnv]]:
        """Return LeRobot's ``{suite: {task_id: vectorised environment}}``, with one task.

        Args:
            n_envs: Environments that step together.
            use_async_envs: Whether each of several runs in a process of its own. The processes get the environment's
                class, so that they need no registration.
        """
        # A partial of a class pickles by name: worker processes import this package and nothing else of the parent's.
        env_fns = [functools.partial(RobosuiteEnv, **self.gym_kwargs)] * n_envs
        if use_async_envs and n_envs > 1:
            return {self.type: {0: _LazyAsyncVectorEnv(env_fns)}}
        return {self.type: {0: gymnasium.vector.SyncVectorEnv(env_fns)}}
