"""A robosuite task as a gymnasium environment with LeRobot's observation keys."""

from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from lerobot_env_pixio.perturbations.distractors import Surface
from lerobot_env_pixio.perturbations.perturbations import Surroundings
from lerobot_env_pixio.simulators.camera_env import Interface, MujocoCameraEnv
from lerobot_env_pixio.simulators.simulation import build_simulation, numpy_seed
from lerobot_env_pixio.simulators.tasks import ROBOTS, TASKS, cameras_of, look_up

if TYPE_CHECKING:
    import mujoco
    from robosuite.environments.base import MujocoEnv

    from lerobot_env_pixio.simulators.devices import RobosuiteDevice

_BIN_WALL = 0.02  # metres, reaching inwards
_POSE = ("x", "y", "z", "qx", "qy", "qz", "qw")


class RobosuiteEnv(MujocoCameraEnv):
    """One robosuite task.

    ``agent_pos``: end-effector position (3, metres, world frame), end-effector quaternion (4, x y z w), gripper joint
    positions (metres). Action: float32 in [-1, 1], see `build_simulation`. Reward: robosuite's sparse one, 1 at success.
    ``info`` has ``object_pose`` (position and quaternion x y z w of the object that the robot manipulates) and, in
    tasks where that object is brought to another, the other's pose as ``goal_pose``.

    Args:
        task: Name in `TASKS`.
        robot: Name in `ROBOTS`.
        object_poses: Whether ``agent_pos`` ends with the poses that are in ``info``, which no real robot knows.
        settings: Further arguments of `CameraEnv`.

    Raises:
        ValueError: A name is unknown.
    """

    simulator, tasks, visual_groups = "robosuite", TASKS, (1, 2)

    def __init__(self, task: str, robot: str, object_poses: bool = False, **settings: Any) -> None:  # noqa: ANN401 (passed on)
        self._task_spec, self._robot_spec = look_up("task", task, TASKS), look_up("robot", robot, ROBOTS)
        self._cameras = cameras_of(self._task_spec, self._robot_spec)
        # LeRobot's tools take for a policy only what ends in .pos or .vel.
        fingers = (f"finger_{number + 1}.pos" for number in range(len(self._robot_spec.gripper_joints)))
        self._gives_poses = object_poses
        things = ("object", *(("goal",) if self._task_spec.goal_body else ())) if object_poses else ()
        poses = [f"{thing}_{number}.pos" for thing in things for number in _POSE]
        interface = Interface(
            description=self._task_spec.description,
            cameras=tuple(self._cameras),
            # Metres within reach of the arm and unit quaternions stay far inside 10.
            state_space=spaces.Box(-10.0, 10.0, (self._robot_spec.state_size + len(poses),), np.float32),
            state_names=(*(f"{number}.pos" for number in _POSE), *fingers, *poses),
            action_space=spaces.Box(-1.0, 1.0, (self._robot_spec.action_size,), np.float32),
            action_names=("x.vel", "y.vel", "z.vel", "roll.vel", "pitch.vel", "yaw.vel", "gripper.pos"),
            control_mode="delta pose of the end effector, and the gripper",
        )
        super().__init__(task, interface, **settings)
        self.robot = robot

    def _build(self) -> "MujocoEnv":
        return build_simulation(self.task, self.robot, self.metadata["render_fps"])

    def _mujoco(self) -> "tuple[mujoco.MjModel, mujoco.MjData]":
        sim = self.simulation.sim
        return sim.model._model, sim.data._data

    def open_device(self, name: str) -> "RobosuiteDevice":
        """Open an input device that moves the robot by hand.

        Raises:
            ValueError: It is unknown, or cannot be opened.
        """
        from lerobot_env_pixio.simulators.devices import RobosuiteDevice

        return RobosuiteDevice(self.simulation, name)

    def close(self) -> None:
        """Free the GL context and the simulation."""
        super().close()
        if self._simulation is not None:
            self._simulation.close()
            self._simulation = None

    def _episode_seed(self, seed: int | None) -> int:
        """Draw the seed of robosuite's random numbers even where one is given, as every demonstration so far has it."""
        del seed  # it seeds what is drawn from here
        return int(self.np_random.integers(2**32))

    def _begin(self, seed: int) -> None:
        simulation = self.simulation  # importing and building it must not draw from the episode's random numbers
        with numpy_seed(seed):
            simulation.reset()

    def _execute(self, action: np.ndarray) -> tuple[float, bool]:
        _, reward, _, _ = self.simulation.step(action)
        return float(reward), bool(self.simulation._check_success())

    def _surroundings(self) -> Surroundings:
        model, data = self.model, self.data
        # A table, or two bins: the first one's bottom and walls come first, and objects start in it.
        bodies = [model.geom_bodyid[geom] for geom in range(model.ngeom)]
        tables = [geom for geom in range(model.ngeom) if model.geom(geom).name == "table_visual"] or [
            geom
            for geom in range(model.ngeom)
            if model.body(bodies[geom]).name in ("bin1", "bin2") and model.geom_group[geom] == 1
        ]
        ground, walls = tables[0], tables[1:]
        half_X = model.geom_size[ground]
        return Surroundings(
            self.task,
            model,
            data,
            scene_cameras=tuple(model.camera(name).id for name, place in self._cameras.items() if place == "scene"),
            table_geoms=tuple(tables),
            table_surface=Surface(
                data.geom_xpos[ground] + [0.0, 0.0, half_X[2]], half_X[:2] - (_BIN_WALL if walls else 0.0)
            ),
            table_bodies=tuple({int(bodies[geom]) for geom in tables}),
        )

    def _proprioception(self) -> np.ndarray:
        quaternion_wxyz = self.data.body(self._robot_spec.eef_body).xquat
        return np.concatenate(
            [
                self.data.site(self._robot_spec.eef_site).xpos,
                np.roll(quaternion_wxyz, -1),
                *(self.data.joint(joint).qpos for joint in self._robot_spec.gripper_joints),
                *(self._knowledge().values() if self._gives_poses else ()),
            ],
            dtype=np.float32,
        )
