"""A robosuite task as a gymnasium environment with LeRobot's observation keys."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces

from lerobot_env_pixio.perturbations import PERTURBATIONS, Appearance, Surroundings, table_textures
from lerobot_env_pixio.render_profiles import RENDER_PROFILES
from lerobot_env_pixio.rendering import CameraRenderer
from lerobot_env_pixio.simulation import build_simulation, numpy_seed
from lerobot_env_pixio.tasks import ROBOTS, TASKS, cameras_of, look_up

if TYPE_CHECKING:
    import mujoco
    from robosuite.environments.base import MujocoEnv

    from lerobot_env_pixio.devices import RobosuiteDevice

Observation = dict[str, Any]

_PERTURBATION_STREAM = 1  # keeps a perturbation's random numbers apart from the episode's


class RobosuiteEnv(gymnasium.Env):
    """One robosuite task seen through cameras and proprioception.

    Observation: ``pixels``, one uint8 (H, W, 3) upright frame for each camera, and ``agent_pos``, float32: end-effector
    position (3, metres, world frame), end-effector quaternion (4, x y z w), gripper joint positions (metres).
    Action: float32 in [-1, 1], see `build_simulation`. `state_names`, `action_names` and `control_mode` say what numbers are.
    Reward: robosuite's sparse one, 1 at success. The episode terminates at success and is truncated after `episode_length` steps.
    ``info`` carries ``is_success``, ``object_pose`` (position and quaternion x y z w of the object that the robot
    manipulates) and, in tasks where that object is brought to another, the other's pose as ``goal_pose``: for scripted
    experts and analysis, never for a policy.

    Rendering takes most of a step's time: while `render_observations` is False, `step` returns the frames rendered last, for
    callers that know that nobody will look at them. Physics does not depend on it.

    Nothing is simulated or rendered, and no GL context exists, before the first `reset`: the main process of a vectorised
    environment can construct one for its spaces.

    Args:
        task: Name in `TASKS`.
        robot: Name in `ROBOTS`.
        camera_names: Cameras to observe.
        image_size: Height and width of a frame in pixels.
        render_profile: Name in `RENDER_PROFILES`.
        episode_length: Steps after which an episode is truncated.
        fps: Control rate in Hz.
        perturbation: Name in `PERTURBATIONS`, or ``none``; drawn anew at every reset from the reset's seed, without
            touching the episode's own random numbers.

    Raises:
        ValueError: A name is unknown.
    """

    def __init__(
        self,
        task: str,
        robot: str,
        camera_names: Sequence[str],
        image_size: int,
        render_profile: str,
        episode_length: int,
        fps: int,
        perturbation: str = "none",
    ) -> None:
        self._task_spec = look_up("task", task, TASKS)
        self._robot_spec = look_up("robot", robot, ROBOTS)
        self._profile = look_up("render profile", render_profile, RENDER_PROFILES)
        self._perturb = look_up("perturbation", perturbation, {"none": None, **PERTURBATIONS})
        for camera in camera_names:
            look_up("camera", camera, cameras_of(self._task_spec, self._robot_spec))

        self.task = task
        self.task_description = self._task_spec.description
        self.robot = robot
        # LeRobot's tools take for a policy only what ends in .pos or .vel.
        fingers = (f"finger_{number + 1}.pos" for number in range(len(self._robot_spec.gripper_joints)))
        self.state_names = ("x.pos", "y.pos", "z.pos", "qx.pos", "qy.pos", "qz.pos", "qw.pos", *fingers)
        self.action_names = ("x.vel", "y.vel", "z.vel", "roll.vel", "pitch.vel", "yaw.vel", "gripper.pos")
        self.control_mode = "delta pose of the end effector, and the gripper"
        self.camera_names = tuple(camera_names)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": fps}
        self.render_mode = "rgb_array"
        self.render_observations = True
        self._image_size = image_size
        self._max_episode_steps = episode_length
        self._fps = fps

        frame = spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        # Metres within reach of the arm and unit quaternions stay far inside 10.
        state = spaces.Box(-10.0, 10.0, (self._robot_spec.state_size,), np.float32)
        self.observation_space = spaces.Dict(
            {"pixels": spaces.Dict(dict.fromkeys(self.camera_names, frame)), "agent_pos": state}
        )
        self.action_space = spaces.Box(-1.0, 1.0, (self._robot_spec.action_size,), np.float32)

        self._simulation: MujocoEnv | None = None
        self._renderer: CameraRenderer | None = None
        self._appearance: Appearance | None = None
        self._frames: dict[str, np.ndarray] = {}
        self._steps = 0

    @property
    def simulation(self) -> "MujocoEnv":
        """Robosuite's environment, built on first use."""
        if self._simulation is None:
            self._simulation = build_simulation(self.task, self.robot, self._fps)
        return self._simulation

    @property
    def model(self) -> "mujoco.MjModel":
        """MuJoCo's model."""
        return self.simulation.sim.model._model

    @property
    def data(self) -> "mujoco.MjData":
        """MuJoCo's state."""
        return self.simulation.sim.data._data

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; the same seed gives the same episode, whatever happened before.

        Args:
            seed: Decides the object's placement and the arm's initial joint noise. Without one the episode follows from
                the seed given last.
            options: Accepted for gymnasium's sake; there are none.
        """
        super().reset(seed=seed)
        simulation = self.simulation  # importing and building it must not draw from the episode's random numbers
        episode_seed = int(self.np_random.integers(2**32))
        with numpy_seed(episode_seed):
            simulation.reset()
        if self._perturb is not None:
            self._change_looks(np.random.default_rng([episode_seed, _PERTURBATION_STREAM]))
        self._steps = 0
        self._render()
        return self._observation(), self._info(is_success=False)

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Execute one action for 1 / fps seconds."""
        _, reward, _, _ = self.simulation.step(action)
        self._steps += 1
        is_success = bool(self.simulation._check_success())
        truncated = not is_success and self._steps >= self._max_episode_steps
        if self.render_observations:
            self._render()
        return self._observation(), float(reward), is_success, truncated, self._info(is_success)

    def render(self) -> np.ndarray:
        """Return the last observation's frames side by side, uint8 (H, cameras x W, 3)."""
        return np.concatenate([self._frames[camera] for camera in self.camera_names], axis=1)

    def open_device(self, name: str) -> "RobosuiteDevice":
        """Open an input device that moves the robot by hand.

        Raises:
            ValueError: It is unknown, or cannot be opened.
        """
        from lerobot_env_pixio.devices import RobosuiteDevice

        return RobosuiteDevice(self.simulation, name)

    def close(self) -> None:
        """Free the GL context and the simulation."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        if self._simulation is not None:
            self._simulation.close()
            self._simulation = None

    @property
    def renderer(self) -> CameraRenderer:
        """The cameras' renderer, with its GL context, made on first use."""
        if self._renderer is None:
            self._renderer = CameraRenderer(self.model, self._image_size, self._profile)
        return self._renderer

    def _change_looks(self, rng: np.random.Generator) -> None:
        import mujoco

        assert self._perturb is not None
        renderer = self.renderer  # its profile shrinks textures, which has to come first
        if self._appearance is None:
            self._appearance = Appearance(self.model)
        self._appearance.restore()
        mounted = cameras_of(self._task_spec, self._robot_spec)
        in_scene = [self.model.camera(name).id for name, place in mounted.items() if place == "scene"]
        table = [geom for geom in range(self.model.ngeom) if self.model.geom(geom).name == "table_visual"]
        around = Surroundings(self.task, self.model, self.data, tuple(in_scene), tuple(table))
        renderer.added_geoms = self._perturb(around, rng)
        mujoco.mj_camlight(self.model, self.data)  # cameras take their new places; physics stays untouched
        for texture in table_textures(around):
            renderer.upload_texture(texture)

    def _render(self) -> None:
        renderer = self.renderer
        self._frames = {camera: renderer.frame(self.data, camera) for camera in self.camera_names}

    def _observation(self) -> Observation:
        return {"pixels": dict(self._frames), "agent_pos": self._proprioception()}

    def _proprioception(self) -> np.ndarray:
        quaternion_wxyz = self.data.body(self._robot_spec.eef_body).xquat
        return np.concatenate(
            [
                self.data.site(self._robot_spec.eef_site).xpos,
                np.roll(quaternion_wxyz, -1),
                *(self.data.joint(joint).qpos for joint in self._robot_spec.gripper_joints),
            ],
            dtype=np.float32,
        )

    def _info(self, is_success: bool) -> dict[str, Any]:
        info = {"is_success": is_success, "object_pose": self._pose(self._task_spec.object_body)}
        if self._task_spec.goal_body is not None:
            info["goal_pose"] = self._pose(self._task_spec.goal_body)
        return info

    def _pose(self, body_name: str) -> np.ndarray:
        body = self.data.body(body_name)
        return np.concatenate([body.xpos, np.roll(body.xquat, -1)])
