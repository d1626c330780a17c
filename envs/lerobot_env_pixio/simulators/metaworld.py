"""Meta-World's 50 tasks: a Sawyer arm before a table, moved by its gripper."""

import importlib.resources
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from lerobot_env_pixio.perturbations.distractors import Circle, Surface
from lerobot_env_pixio.perturbations.perturbations import Surroundings
from lerobot_env_pixio.simulators.camera_env import Interface, MujocoCameraEnv
from lerobot_env_pixio.simulators.tasks import look_up

if TYPE_CHECKING:
    import mujoco
    from metaworld.sawyer_xyz_env import SawyerXYZEnv

LONGEST_EPISODE = 500  # SawyerXYZEnv.max_path_length, after which it refuses to go on

# What the arm reaches of the table.
SURFACE = Surface(np.array([0.0, 0.64, 0.0]), np.array([0.34, 0.24]))
_GOAL_RADIUS = 0.12  # metres; the hole in the table, where there is one, lies within

# CortexBench's camera, which Meta-World's files lack: where it stands, and the body that it looks at.
_ADDED_CAMERA, _ADDED_POSITION, _ADDED_TARGET = "top_cap2", (0.0, 0.9, 0.6), "tablelink"

_SCENE_CAMERAS = ("corner", "corner2", "corner3", "topview", _ADDED_CAMERA)
_CAMERAS = (*_SCENE_CAMERAS, "behindGripper", "gripperPOV")
# These hang upside down in Meta-World's files; pictures in papers and LeRobot's environment show corner2 turned round.
_UPSIDE_DOWN = ("corner", "corner2", "corner3")
# Where LeRobot's environment, and the datasets recorded with it, put corner2: nearer than Meta-World's files do.
_CORNER2_POSITION = (0.75, 0.075, 0.7)


# By their names, such as ``drawer-open-v3``: LeRobot's instructions in words. LeRobot's module that holds them imports
# Meta-World, and that MuJoCo; its package of environments takes seconds, too.
TASKS: dict[str, str] = json.loads(
    (importlib.resources.files("lerobot") / "envs" / "metaworld_config.json").read_text(encoding="utf-8")
)["TASK_DESCRIPTIONS"]


# The ten of Yu et al. (arXiv 1910.10897) that one policy learns together; Meta-World's own list loads MuJoCo.
_MT10 = (
    *("reach-v3", "push-v3", "pick-place-v3", "door-open-v3", "drawer-open-v3", "drawer-close-v3"),
    *("button-press-topdown-v3", "peg-insert-side-v3", "window-open-v3", "window-close-v3"),
)


class MetaworldEnv(MujocoCameraEnv):
    """One of Meta-World's tasks, its objects and goal placed anew by every reset's seed.

    Action: float32 (4,) in [-1, 1]: how far the gripper's target moves (1 is 1 cm), and the fingers' effort (1 closes).
    ``agent_pos``: position of the hand (3, metres, world frame) and how far the fingers are open (0 to 1). Reward: Meta-World's
    dense one, 0 to 10. ``info["full_state"]`` is Meta-World's own observation (39,) with the goal in its last three places.
    ``top_cap2`` is CortexBench's camera (arXiv 2303.18240), which Meta-World itself does not have.

    Args:
        task: Meta-World's name of the task.
        settings: Further arguments of `CameraEnv`.

    Raises:
        ValueError: A name is unknown, or Meta-World does not run at that rate or for that long.
    """

    simulator, rate, tasks = "Meta-World", 80, TASKS  # 5 steps of 2.5 ms
    groups = {"MT10": _MT10}  # noqa: RUF012

    def __init__(self, task: str, **settings: Any) -> None:  # noqa: ANN401 (passed on)
        interface = Interface(
            description=look_up("task", task, TASKS),
            cameras=_CAMERAS,
            state_space=spaces.Box(-2.0, 2.0, (4,), np.float32),  # metres from the robot's base, and a share
            state_names=("x.pos", "y.pos", "z.pos", "gripper.pos"),
            action_space=spaces.Box(-1.0, 1.0, (4,), np.float32),
            action_names=("x.vel", "y.vel", "z.vel", "gripper.pos"),  # as for robosuite
            control_mode="delta position of the end effector, and the gripper's effort",
        )
        super().__init__(task, interface, **settings)
        if self._max_episode_steps > LONGEST_EPISODE:
            raise ValueError(
                f"Meta-World's episodes end after {LONGEST_EPISODE} steps: set episode_length to that or less, "
                f"not {self._max_episode_steps}"
            )
        self._full_state = np.zeros(39)

    def _build(self) -> "SawyerXYZEnv":
        simulation = _build_simulation(self.task)
        _hang_cameras(simulation.model)
        return simulation

    def _mujoco(self) -> "tuple[mujoco.MjModel, mujoco.MjData]":
        return self.simulation.model, self.simulation.data

    def _begin(self, seed: int) -> None:
        self.simulation.seed(seed)
        self._full_state, _ = self.simulation.reset()

    def _execute(self, action: np.ndarray) -> tuple[float, bool]:
        self._full_state, reward, _, _, info = self.simulation.step(action)
        return float(reward), bool(info["success"])

    def _surroundings(self) -> Surroundings:
        model, goal_X = self.model, self.simulation._target_pos
        table, *rim = (model.body(name).id for name in ("tablelink", "RetainingWall") if _has_body(model, name))
        is_seen = np.isin(model.geom_group, self.visual_groups)
        return Surroundings(
            self.task,
            model,
            self.data,
            scene_cameras=tuple(model.camera(name).id for name in _SCENE_CAMERAS),
            table_geoms=tuple(np.flatnonzero((model.geom_bodyid == table) & is_seen).tolist()),
            table_surface=SURFACE,
            table_bodies=(table, *rim),
            kept_clear=(Circle(np.array(goal_X[:2]), _GOAL_RADIUS),),
        )

    def _proprioception(self) -> np.ndarray:
        return self._full_state[:4].astype(np.float32)

    def _knowledge(self) -> dict[str, Any]:
        return {"full_state": self._full_state.copy()}


def _build_simulation(task: str) -> "SawyerXYZEnv":
    """Build the environment with its goal observable and its objects placed by its own seeded generator."""
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    simulation = _with_added_camera(ALL_V3_ENVIRONMENTS[task])()
    simulation._partially_observable = False
    del simulation.sawyer_observation_space  # a cached property, computed for a hidden goal
    simulation._freeze_rand_vec, simulation.seeded_rand_vec = False, True
    simulation._set_task_called = True
    return simulation


def _with_added_camera(stock: "type[SawyerXYZEnv]") -> "type[SawyerXYZEnv]":
    """Return the task with one more camera in its model; nothing else of the model changes."""
    import mujoco

    class WithAddedCamera(stock):  # pyright: ignore[reportGeneralTypeIssues]
        def _initialize_simulation(self) -> "tuple[mujoco.MjModel, mujoco.MjData]":
            spec = mujoco.MjSpec.from_file(self.fullpath)
            spec.worldbody.add_camera(
                name=_ADDED_CAMERA,
                mode=mujoco.mjtCamLight.mjCAMLIGHT_TARGETBODY,
                targetbody=_ADDED_TARGET,
                pos=_ADDED_POSITION,
            )
            model = spec.compile()
            return model, mujoco.MjData(model)

    return WithAddedCamera


def _hang_cameras(model: "mujoco.MjModel") -> None:
    """Turn upside-down cameras upright, and bring corner2 to where users of LeRobot know it."""
    import mujoco

    model.cam_pos[model.camera("corner2").id] = _CORNER2_POSITION
    half_turn_wxyz = np.array([0.0, 0.0, 0.0, 1.0])  # about the line of sight
    for name in _UPSIDE_DOWN:
        camera, turned_wxyz = model.camera(name).id, np.zeros(4)
        mujoco.mju_mulQuat(turned_wxyz, model.cam_quat[camera], half_turn_wxyz)
        model.cam_quat[camera] = turned_wxyz


def _has_body(model: "mujoco.MjModel", name: str) -> bool:
    import mujoco

    return mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, name) >= 0
