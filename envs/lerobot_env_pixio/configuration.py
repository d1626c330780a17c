"""`--env.type=pixio_…`: simulated tasks for `lerobot-eval` and for our own training and evaluation."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import draccus
import gymnasium
import numpy as np
from gymnasium import spaces
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.envs.utils import _LazyAsyncVectorEnv, env_to_policy_features
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from lerobot_env_pixio.experts import EXPERTS, Expert
from lerobot_env_pixio.experts.adroit import AdroitExpert
from lerobot_env_pixio.experts.aloha import ALOHA_EXPERTS
from lerobot_env_pixio.experts.metaworld import MetaworldExpert
from lerobot_env_pixio.rendering.profiles import RENDER_PROFILES
from lerobot_env_pixio.simulators import EXPERT_FIELDS
from lerobot_env_pixio.simulators.adroit import AdroitEnv
from lerobot_env_pixio.simulators.aloha import AlohaEnv
from lerobot_env_pixio.simulators.camera_env import CameraEnv
from lerobot_env_pixio.simulators.dmc import CAMERA, EPISODE_STEPS, DmcEnv
from lerobot_env_pixio.simulators.metaworld import MetaworldEnv
from lerobot_env_pixio.simulators.pusht import PushTEnv
from lerobot_env_pixio.simulators.robosuite import RobosuiteEnv
from lerobot_env_pixio.simulators.task_mixture import TaskMixture
from lerobot_env_pixio.simulators.tasks import ROBOTS

# LeRobot's own fields that say nothing about the environment itself.
_LEROBOTS_FIELDS = ("features", "features_map", "max_parallel_tasks", "disable_env_checker")


@dataclass
class PixioEnvConfig(EnvConfig):
    """What the simulators' configs share: an environment made from the config's fields, and its features.

    A subclass names its environment's class, whose arguments are the config's fields. `task` may name several tasks with
    commas between them, or a group of them; each episode is then one of them by its seed, see `TaskMixture`.

    Attributes:
        camera_names: Cameras that the policy sees.
        image_size: Height and width of a camera frame in pixels.
        render_profile: ``standard`` as the simulator ships, ``fast`` without shadows, reflections and multisampling, or
            ``lite``, which also draws meshes with a tenth of their faces.
        episode_length: Steps after which an episode without success ends.
        perturbation: A change of looks drawn anew for every episode, for evaluation: ``light``, ``camera``,
            ``table_texture``, ``table_colour`` or ``distractors``; ``none`` shows the task as it is.

    Raises:
        ValueError: A name is unknown; the message offers the nearest valid one.
    """

    env_class: ClassVar[type[CameraEnv]]
    robots: ClassVar[tuple[str, ...]]
    """Names of the robots that can stand in the scene."""
    render_profiles: ClassVar[tuple[str, ...]] = tuple(RENDER_PROFILES)

    camera_names: list[str] = field(default_factory=list)
    image_size: int = 128
    render_profile: str = "lite"
    episode_length: int = 150
    perturbation: str = "none"

    def __post_init__(self) -> None:
        """Check the names and derive LeRobot's features from the environment's spaces."""
        env = self.make_env()  # nothing is simulated yet: this only checks the names
        observations, actions = env.observation_space, env.action_space
        assert isinstance(observations, spaces.Dict)
        assert actions.shape is not None
        assert observations["agent_pos"].shape is not None
        frame = PolicyFeature(FeatureType.VISUAL, (self.image_size, self.image_size, 3))
        images = {f"{OBS_IMAGES}.{camera}": frame for camera in self.camera_names}
        self.features = {
            ACTION: PolicyFeature(FeatureType.ACTION, actions.shape),
            "agent_pos": PolicyFeature(FeatureType.STATE, observations["agent_pos"].shape),
            **images,
        }
        self.features_map = {ACTION: ACTION, "agent_pos": OBS_STATE, **{key: key for key in images}}

    @classmethod
    def tasks(cls) -> list[str]:
        """Return the names of all tasks."""
        return list(cls.env_class.tasks)

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """Arguments of the environment."""
        left_out = {*_LEROBOTS_FIELDS, *EXPERT_FIELDS}
        names = [field.name for field in dataclasses.fields(self) if field.name not in left_out]
        return {name: getattr(self, name) for name in names}

    @property
    def task_names(self) -> list[str]:
        """Names of the tasks that `task` stands for."""
        return self.env_class.task_names(self.task or "")

    @property
    def task_descriptions(self) -> list[str]:
        """Their sentences; an episode's is at its seed modulo their number."""
        return list(getattr(self.make_env(), "task_descriptions", ())) or [self.make_env().task_description]

    def make_env(self) -> CameraEnv | TaskMixture:
        """Return one environment, which builds its simulation on the first reset."""
        return _make(self.env_class, self.task_names, {**self.gym_kwargs})

    def described(self) -> dict[str, Any]:
        """Return the environment's type and fields, ready for JSON."""
        fields = draccus.encode(self, EnvConfig)
        return {name: value for name, value in fields.items() if name not in ("features", "features_map")}

    def _expert(self, make: Callable[[str], Expert]) -> Expert:
        """Return the demonstrator of a task, or of whichever of several an environment was reset to."""
        names = self.task_names
        return make(names[0]) if len(names) == 1 else _ExpertOfEpisode(make)

    def create_envs(
        self, n_envs: int, use_async_envs: bool = False
    ) -> dict[str, dict[int, gymnasium.vector.VectorEnv | _LazyAsyncVectorEnv]]:
        """Return LeRobot's ``{suite: {task_id: vectorised environment}}``, with one entry, however many tasks it mixes.

        Args:
            n_envs: Environments that step together.
            use_async_envs: Whether each of several runs in a process of its own. The processes get the environment's
                class, so that they need no registration.
        """
        # LeRobot gives a policy these features, and not the environment: ours looks here whether it was trained in another.
        vars(self.features[ACTION])["environment"] = self.described() | {"features": env_to_policy_features(self)}
        # A partial of a class pickles by name: worker processes import this package and nothing else of the parent's.
        env_fns = [functools.partial(_make, self.env_class, self.task_names, {**self.gym_kwargs})] * n_envs
        if use_async_envs and n_envs > 1:
            return {self.type: {0: _LazyAsyncVectorEnv(env_fns)}}
        return {self.type: {0: gymnasium.vector.SyncVectorEnv(env_fns)}}


def _make(kind: type[CameraEnv], tasks: Sequence[str], settings: dict[str, Any]) -> CameraEnv | TaskMixture:
    others = {name: value for name, value in settings.items() if name != "task"}
    return kind(task=tasks[0], **others) if len(tasks) == 1 else TaskMixture(kind, tasks, **others)  # type: ignore[call-arg]


class _ExpertOfEpisode:
    """The demonstrator of the task that an environment was reset to."""

    def __init__(self, make: Callable[[str], Expert]) -> None:
        self._make = make

    def reset(self, env: gymnasium.Env) -> None:
        self._expert = self._make(env.unwrapped.task)  # type: ignore[attr-defined]
        self._expert.reset(env)

    def act(self, observation: dict[str, Any], info: dict[str, Any]) -> np.ndarray:
        return self._expert.act(observation, info)

    @property
    def errs(self) -> bool | None:
        return getattr(self._expert, "errs", None)


@EnvConfig.register_subclass("pixio_robosuite")
@dataclass
class RobosuiteEnvConfig(PixioEnvConfig):
    """A robosuite task on LeRobot's environment contract.

    Attributes:
        task: robosuite's name of the task.
        fps: Control rate in Hz.
        camera_names: Cameras that the policy sees.
        robot: robosuite's name of the robot.
        object_poses: Whether the state ends with the object's pose and its goal's, to learn what a policy reaches that need not
            see them.
        expert_mistakes: Share of the demonstrations in which the first grasp misses on purpose, and of those in which the hand
            goes astray, so that they show the way back; the mistakes themselves are not imitated.
    """

    env_class = RobosuiteEnv
    robots = tuple(ROBOTS)

    task: str | None = "Lift"
    fps: int = 20
    camera_names: list[str] = field(default_factory=lambda: ["agentview", "robot0_eye_in_hand"])
    robot: str = "Panda"
    object_poses: bool = False
    expert_mistakes: float = 0.0

    def __post_init__(self) -> None:
        """See the base class; a share is from 0 to 1."""
        super().__post_init__()
        if not 0.0 <= self.expert_mistakes <= 1.0:
            raise ValueError(f"expert_mistakes={self.expert_mistakes} is no share: give a number from 0 to 1.")

    def make_expert(self, seed: int) -> Expert:
        """Return a scripted demonstrator for the task, whose recorded noise follows from the seed.

        Args:
            seed: One for each episode: the expert's `reset` starts the same noise again.
        """
        return self._expert(lambda task: EXPERTS[task](seed, self.robot, self.expert_mistakes))


@EnvConfig.register_subclass("pixio_metaworld")
@dataclass
class MetaworldEnvConfig(PixioEnvConfig):
    """One of Meta-World's 50 tasks.

    Attributes:
        task: Meta-World's name of the task, or ``MT10``.
        fps: 80: Meta-World knows no other control rate.
        camera_names: Cameras that the policy sees.
        episode_length: Steps after which an episode without success ends, 500 at most.
        ends_at_success: False lets every episode run to its length, and counts it as a success if the task is done then.
        expert_noise: Factor on the noise in the demonstrator's recorded actions.
    """

    env_class = MetaworldEnv
    robots = ("Sawyer",)

    task: str | None = "drawer-open-v3"
    fps: int = 80
    camera_names: list[str] = field(default_factory=lambda: ["corner2", "gripperPOV"])
    episode_length: int = 500
    ends_at_success: bool = True
    expert_noise: float = 1.0

    def make_expert(self, seed: int) -> Expert:
        """Return Meta-World's own demonstrator for the task, with recorded noise that follows from the seed."""
        return self._expert(lambda task: MetaworldExpert(task, seed, self.expert_noise))


@EnvConfig.register_subclass("pixio_aloha")
@dataclass
class AlohaEnvConfig(PixioEnvConfig):
    """One of gym-aloha's tasks for two arms.

    Attributes:
        task: ``transfer_cube`` or ``insertion``.
        fps: 50: ALOHA knows no other control rate.
        camera_names: Cameras that the policy sees.
    """

    env_class = AlohaEnv
    robots = ("two ViperX arms",)

    task: str | None = "transfer_cube"
    fps: int = 50
    camera_names: list[str] = field(default_factory=lambda: ["top", "angle"])
    episode_length: int = 400

    def make_expert(self, seed: int) -> Expert:
        """Return a scripted demonstrator for the task, whose recorded noise follows from the seed."""
        return self._expert(lambda task: ALOHA_EXPERTS[task](seed))


@EnvConfig.register_subclass("pixio_pusht")
@dataclass
class PushTEnvConfig(PixioEnvConfig):
    """gym-pusht's task; it has no scripted expert.

    Attributes:
        task: ``PushT``.
        fps: 10: PushT knows no other control rate.
        camera_names: ``top`` alone.
        render_profile: ``standard`` alone.
    """

    env_class = PushTEnv
    robots = ("a disc",)
    render_profiles = ("standard",)

    task: str | None = "PushT"
    fps: int = 10
    camera_names: list[str] = field(default_factory=lambda: ["top"])
    render_profile: str = "standard"
    episode_length: int = 300


@EnvConfig.register_subclass("pixio_adroit")
@dataclass
class AdroitEnvConfig(PixioEnvConfig):
    """One of Adroit's tasks; needs the extra ``adroit``.

    Attributes:
        task: ``pen`` or ``relocate``.
        fps: 100: Adroit knows no other control rate.
        camera_names: Cameras that the policy sees.
        episode_length: Steps of every episode; CortexBench's are 100 for the pen and 200 for relocate.
        experts: Folder of the demonstrators' weights, ``<task>.npz``; None has no demonstrators.
    """

    env_class = AdroitEnv
    robots = ("Adroit hand",)

    task: str | None = "pen"
    fps: int = 100
    camera_names: list[str] = field(default_factory=lambda: ["vil_camera"])
    render_profile: str = "fast"
    episode_length: int = 100
    experts: str | None = None

    def make_expert(self, seed: int) -> Expert:
        """Return the demonstrator, which adds no noise.

        Raises:
            ValueError: There is none.
        """
        if self.experts is None:
            raise ValueError("Adroit's experts are the user's own files: name their folder with env.experts=…")
        folder = Path(self.experts)
        return self._expert(lambda task: AdroitExpert(task, folder))


@EnvConfig.register_subclass("pixio_dmc")
@dataclass
class DmcEnvConfig(PixioEnvConfig):
    """A task of the DeepMind Control Suite; it has no scripted expert, and no success: the return counts.

    Attributes:
        task: Such as ``walker_walk``.
        fps: The suite's control rate of the task over `action_repeat`.
        camera_names: ``camera_0`` alone.
        action_repeat: Steps of the suite in one step.
        episode_length: Steps of every episode: the suite's 1000 over `action_repeat`.
    """

    env_class = DmcEnv
    robots = ("bodies of the suite",)

    task: str | None = "walker_walk"
    fps: int = 20
    camera_names: list[str] = field(default_factory=lambda: [CAMERA])
    render_profile: str = "fast"
    action_repeat: int = 2
    episode_length: int = EPISODE_STEPS // 2
