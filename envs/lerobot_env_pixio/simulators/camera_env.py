"""What simulated tasks share: LeRobot's observation keys, cameras looked through on demand, and the length of episodes."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from lerobot_env_pixio.perturbations.perturbations import PERTURBATIONS, Appearance, Surroundings, table_textures
from lerobot_env_pixio.rendering.frames import CameraRenderer
from lerobot_env_pixio.rendering.profiles import RENDER_PROFILES
from lerobot_env_pixio.simulators.tasks import TaskSpec, look_up

if TYPE_CHECKING:
    import mujoco

Observation = dict[str, Any]

NOMINAL = "none"
_PERTURBATION_STREAM = 1  # keeps a perturbation's random numbers apart from the episode's


@dataclass(frozen=True)
class Interface:
    """What a task takes and gives.

    Attributes:
        description: The instruction in words, for language-conditioned policies.
        cameras: Names of all its cameras.
        state_space: Bounds of the proprioception.
        state_names: What each of its numbers is.
        action_space: Bounds of the actions.
        action_names: What each of an action's numbers is.
        control_mode: What an action is, in words: a ``delta``, a motion from where the robot is, or ``absolute``, a place.
    """

    description: str
    cameras: Sequence[str]
    state_space: spaces.Box
    state_names: Sequence[str]
    action_space: spaces.Box
    action_names: Sequence[str]
    control_mode: str


class CameraEnv(gymnasium.Env, ABC):
    """A task seen through cameras and proprioception.

    Observation: ``pixels``, one uint8 (H, W, 3) upright frame for each camera, and ``agent_pos``, float32.
    ``info`` carries ``is_success`` and what the simulator knows beside it: for scripted experts and analysis, never for
    a policy. The episode terminates at success and is truncated after `episode_length` steps; or, where `ends_at_success`
    is False, it goes on for all of them, and is judged at the last. `state_names`, `action_names` and `control_mode` say
    what numbers are.

    Rendering takes most of a step's time: while `render_observations` is False, `step` returns the frames rendered last,
    for callers that know that nobody will look at them. Physics does not depend on it.

    Nothing is simulated or rendered, and no GL context exists, before the first `reset`: the main process of a vectorised
    environment can construct one for its spaces.

    A subclass names its simulator, the rate that this runs at where it is one alone (Hz), the names of its tasks, of groups
    of tasks and of its render profiles, and the groups of geoms to draw.

    Args:
        task: Name in `tasks`.
        interface: What the task takes and gives.
        camera_names: Cameras to observe.
        image_size: Height and width of a frame in pixels.
        render_profile: Name in `profiles`.
        episode_length: Steps after which an episode is truncated.
        fps: Control rate in Hz.
        perturbation: Name in `PERTURBATIONS`, or ``none``; drawn anew at every reset from the reset's seed, without
            touching the episode's own random numbers. Another may be set between episodes.
        ends_at_success: Whether an episode is over, and a success, once the task is done.

    Raises:
        ValueError: A name is unknown, or the simulator does not run at that rate.
    """

    simulator: ClassVar[str]
    rate: int | None = None
    tasks: ClassVar[Mapping[str, Any]]
    groups: ClassVar[Mapping[str, Sequence[str]]] = {}
    profiles: ClassVar[Mapping[str, Any]] = RENDER_PROFILES

    def __init__(
        self,
        task: str,
        interface: Interface,
        *,
        camera_names: Sequence[str],
        image_size: int,
        render_profile: str,
        episode_length: int,
        fps: int,
        perturbation: str = NOMINAL,
        ends_at_success: bool = True,
    ) -> None:
        for camera in camera_names:
            look_up("camera", camera, dict.fromkeys(interface.cameras))
        if self.rate not in (None, fps):
            rate = f"{self.rate} Hz and nothing else: set fps={self.rate}, not {fps}"
            raise ValueError(f"{self.simulator} is controlled at {rate}")
        self._profile = look_up("render profile", render_profile, self.profiles)
        look_up("perturbation", perturbation, {NOMINAL: None, **PERTURBATIONS})
        for name, value in (("image_size", image_size), ("episode_length", episode_length), ("fps", fps)):
            if value < 1:
                raise ValueError(f"env.{name} must be a whole number of at least 1, got {value}")
        names, sizes = (interface.state_names, interface.action_names), (interface.state_space, interface.action_space)
        assert [(len(each),) for each in names] == [space.shape for space in sizes]
        self.task, self.task_description = task, interface.description
        self.camera_names, self.state_names, self.action_names = (tuple(each) for each in (camera_names, *names))
        self.control_mode = interface.control_mode
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": fps}
        self.render_mode = "rgb_array"
        self.render_observations = True
        self._image_size = image_size
        self._max_episode_steps = episode_length
        self.perturbation = perturbation
        self._looks_nominal = True
        self._ends_at_success = ends_at_success

        frame = spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.observation_space = spaces.Dict(
            {"pixels": spaces.Dict(dict.fromkeys(self.camera_names, frame)), "agent_pos": interface.state_space}
        )
        self._state_space, self.action_space = interface.state_space, interface.action_space
        self._simulation: Any = None
        self._frames: dict[str, np.ndarray] = {}
        self._has_begun = False
        self._steps = self._steps_done = 0

    @classmethod
    def task_names(cls, task: str) -> list[str]:
        """Return the tasks that a name stands for: itself, those of a group, or several with commas between them."""
        return list(cls.groups.get(task) or (name.strip() for name in task.split(",")))

    @property
    def simulation(self) -> Any:  # noqa: ANN401 (simulators have no common class)
        """The simulator's own environment, built on first use."""
        if self._simulation is None:
            self._simulation = self._build()
        return self._simulation

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; the same seed gives the same episode, whatever happened before.

        Args:
            seed: Decides where everything is. Without one the episode follows from the seed given last.
            options: Accepted for gymnasium's sake; there are none.
        """
        super().reset(seed=seed)
        episode_seed = self._episode_seed(seed)
        self._begin(episode_seed)
        if self.perturbation != NOMINAL or not self._looks_nominal:
            self._perturb(self.perturbation, np.random.default_rng([episode_seed, _PERTURBATION_STREAM]))
            self._looks_nominal = self.perturbation == NOMINAL
        self._steps = self._steps_done = 0
        self._has_begun = True
        self._look()
        return self._observation(), self._info(is_success=False)

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Execute one action for 1 / fps seconds; where that breaks the simulation, the episode ends as a failure, aloud.

        Raises:
            gymnasium.error.ResetNeeded: There was no `reset` before.
            ValueError: The action is not as many numbers as the task takes, or one is not finite.
        """
        self._check_reset("step")
        action = self._checked(action)
        reward, is_done = self._execute(action)
        self._steps += 1
        is_broken = self._is_broken()
        if is_broken:
            warnings.warn(
                f"{self.simulator} {self.task}: the simulation became unstable in step {self._steps}; the episode ends as a "
                f"failure. Actions that jump across their whole range do that.",
                stacklevel=2,
            )
        self._steps_done += is_done
        is_last = is_broken or self._steps >= self._max_episode_steps
        is_success = is_done if self._ends_at_success else is_last and self._succeeded(is_done)
        is_success = is_success and not is_broken
        truncated = is_last and not is_success
        if self.render_observations:
            self._look()
        return self._observation(is_broken), reward, is_success, truncated, self._info(is_success)

    def render(self) -> np.ndarray:
        """Return the last observation's frames side by side, uint8 (H, cameras x W, 3).

        Raises:
            gymnasium.error.ResetNeeded: There was no `reset` before.
        """
        self._check_reset("render")
        return np.concatenate([self._frames[camera] for camera in self.camera_names], axis=1)

    def _check_reset(self, call: str) -> None:
        if not self._has_begun:
            raise gymnasium.error.ResetNeeded(f"{self.simulator} {self.task}: call reset before {call}")

    def _checked(self, action: np.ndarray) -> np.ndarray:
        numbers, count = np.asarray(action), len(self.action_names)
        if numbers.shape != (count,):
            raise ValueError(
                f"an action of {self.task} has the shape ({count},), for {', '.join(self.action_names)}; got {numbers.shape}"
            )
        wrong = [name for name, number in zip(self.action_names, numbers, strict=True) if not np.isfinite(number)]
        if wrong:
            raise ValueError(f"the action for {self.task} in step {self._steps} is not finite: {', '.join(wrong)}")
        return numbers

    def _episode_seed(self, seed: int | None) -> int:
        """Return what decides an episode: the reset's seed, or without one a number that follows from the seed given last."""
        return int(self.np_random.integers(2**32)) if seed is None else seed

    @abstractmethod
    def _build(self) -> Any:  # noqa: ANN401 (as above)
        """Build the simulation."""

    @abstractmethod
    def _begin(self, seed: int) -> None:
        """Put everything where an episode of that seed starts."""

    @abstractmethod
    def _perturb(self, perturbation: str, rng: np.random.Generator) -> None:
        """Change how the episode that has begun looks, or with ``none`` make it look as the task does."""

    @abstractmethod
    def _execute(self, action: np.ndarray) -> tuple[float, bool]:
        """Simulate one step; return the reward, and whether the task is done."""

    def _is_broken(self) -> bool:
        """Tell, once, whether the simulation's numbers left what physics allows in this step."""
        return False

    def _succeeded(self, is_done: bool) -> bool:
        """Tell at the last step whether an episode that does not end at success was one: by default, done at that step."""
        return is_done

    @abstractmethod
    def _frame(self, camera: str) -> np.ndarray:
        """Return what a camera sees now."""

    @abstractmethod
    def _proprioception(self) -> np.ndarray:
        """Return what the robot knows of itself now, float32."""

    @abstractmethod
    def _knowledge(self) -> dict[str, Any]:
        """Return what the simulator knows and a policy does not."""

    def _look(self) -> None:
        self._frames = {camera: self._frame(camera) for camera in self.camera_names}

    def _observation(self, is_broken: bool = False) -> Observation:
        state, space = self._proprioception(), self._state_space
        return {"pixels": dict(self._frames), "agent_pos": state.clip(space.low, space.high) if is_broken else state}

    def _info(self, is_success: bool) -> dict[str, Any]:
        return {"is_success": is_success, **self._knowledge()}


class MujocoCameraEnv(CameraEnv):
    """A `CameraEnv` on a MuJoCo model."""

    visual_groups: ClassVar[tuple[int, ...]] = (0, 1, 2)

    _task_spec: TaskSpec
    _renderer: CameraRenderer | None = None
    _appearance: Appearance | None = None

    @property
    def model(self) -> "mujoco.MjModel":
        """MuJoCo's model, built on first use."""
        return self._mujoco()[0]

    @property
    def data(self) -> "mujoco.MjData":
        """MuJoCo's state."""
        return self._mujoco()[1]

    @abstractmethod
    def _mujoco(self) -> "tuple[mujoco.MjModel, mujoco.MjData]":
        """Return the simulation's model and state."""

    def _is_broken(self) -> bool:
        import mujoco

        found = [
            self.data.warning[getattr(mujoco.mjtWarning, f"mjWARN_BAD{kind}")] for kind in ("QPOS", "QVEL", "QACC")
        ]
        numbers = [warning.number for warning in found]
        for warning in found:
            warning.number = 0
        return any(numbers) or not self._state_space.contains(self._proprioception())

    @property
    def renderer(self) -> CameraRenderer:
        """The cameras' renderer, with its GL context, made on first use."""
        if self._renderer is None:
            self._renderer = CameraRenderer(self.model, self._image_size, self._profile, self.visual_groups)
        return self._renderer

    def close(self) -> None:
        """Free the GL context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    @abstractmethod
    def _surroundings(self) -> Surroundings:
        """Return what a perturbation may change."""

    def _perturb(self, perturbation: str, rng: np.random.Generator) -> None:
        import mujoco

        renderer = self.renderer  # its profile shrinks textures, which has to come first
        if self._appearance is None:
            self._appearance = Appearance(self.model)
        self._appearance.restore()
        mujoco.mj_camlight(self.model, self.data)  # cameras are where the task has them
        around = self._surroundings()
        renderer.added_geoms = [] if perturbation == NOMINAL else PERTURBATIONS[perturbation](around, rng)
        mujoco.mj_camlight(self.model, self.data)  # and take their new places; physics stays untouched
        for texture in table_textures(around):
            renderer.upload_texture(texture)

    def _frame(self, camera: str) -> np.ndarray:
        return self.renderer.frame(self.data, camera)

    def _pose(self, body_name: str) -> np.ndarray:
        """Return a body's position (3, metres) and quaternion (x y z w) in the world."""
        body = self.data.body(body_name)
        return np.concatenate([body.xpos, np.roll(body.xquat, -1)])

    def _knowledge(self) -> dict[str, Any]:
        """Return the pose of the object that the task is about and, where it has a goal, the goal's."""
        task = self._task_spec
        poses = {"object_pose": self._pose(task.object_body)}
        return poses if task.goal_body is None else {**poses, "goal_pose": self._pose(task.goal_body)}
