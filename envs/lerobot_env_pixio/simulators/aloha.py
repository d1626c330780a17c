"""ALOHA: two ViperX arms across a table hand over a cube, or put a peg into a socket."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from lerobot_env_pixio.perturbations.distractors import Surface
from lerobot_env_pixio.perturbations.perturbations import Surroundings
from lerobot_env_pixio.rendering.frames import HIDDEN_GROUP, explains_missing_gl
from lerobot_env_pixio.rendering.textures import add_material
from lerobot_env_pixio.simulators.camera_env import Interface, MujocoCameraEnv
from lerobot_env_pixio.simulators.tasks import TaskSpec, look_up

if TYPE_CHECKING:
    import mujoco
    from dm_control.rl.control import Environment

# What both arms reach of the table.
SURFACE = Surface(np.array([0.0, 0.55, 0.0]), np.array([0.28, 0.22]))

_SCENE_CAMERAS = ("top", "angle", "front_close", "left_pillar", "right_pillar")
_CAMERAS = (*_SCENE_CAMERAS, "left_wrist", "right_wrist")

# The instructions are those of LeRobot's datasets of these tasks.
TASKS = {
    "transfer_cube": TaskSpec("Pick up the cube with the right arm and transfer it to the left arm.", "box", _CAMERAS),
    "insertion": TaskSpec("Insert the peg into the socket.", "peg", _CAMERAS, goal_body="socket"),
}

# Limits of an arm's six joints (radians: waist, shoulder, elbow, forearm roll, wrist angle, wrist rotation) in the
# simulator's files, and of its gripper (0 closed, 1 open).
JOINT_LIMITS = np.array(
    [[-3.14158, 3.14158], [-1.85005, 1.25664], [-1.76278, 1.6057], [-3.14158, 3.14158], [-1.8675, 2.23402],
     [-3.14158, 3.14158], [0.0, 1.0]],
    np.float32,
)  # fmt: skip
# Of an arm, in the order of states and actions: LeRobot's names for them, with what its tools expect them to end in.
_MOTORS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")
_MOTOR_NAMES = tuple(f"{side}_{motor}.pos" for side in ("left", "right") for motor in _MOTORS)
SUCCESS_REWARD = 4

# gym-aloha's table is a mesh without texture coordinates: a texture would be drawn across its edge, in stripes.
_TABLECLOTH = "pixio_tablecloth"
_CLOTH_TEXTURE_SIZE = 256
_CLOTH_HALF_EXTENTS = [0.6096, 0.381, 0.0005]  # the table's, and half a millimetre


class AlohaEnv(MujocoCameraEnv):
    """gym-aloha's tasks, the cube or peg and socket placed anew by every reset's seed.

    Action: float32 (14,), for the left arm and then the right: where its six joints shall go (radians) and how far its gripper
    shall open (0 closed, 1 open). ``agent_pos``: where they are, in the same units. Reward: gym-aloha's stage of the task, 0
    to 4, which is success. ``info`` has the ``object_pose`` of cube or peg (position in metres, quaternion x y z w), and
    the socket's as ``goal_pose``.

    Args:
        task: Name in `TASKS`.
        settings: Further arguments of `CameraEnv`.

    Raises:
        ValueError: A name is unknown, or the rate is not 50 Hz.
    """

    simulator, rate, tasks = "ALOHA", 50, TASKS

    def __init__(self, task: str, **settings: Any) -> None:  # noqa: ANN401 (passed on)
        self._task_spec = look_up("task", task, TASKS)
        low, high = np.tile(JOINT_LIMITS, (2, 1)).T
        interface = Interface(
            description=self._task_spec.description,
            cameras=self._task_spec.cameras,
            state_space=spaces.Box(-1000.0, 1000.0, (14,), np.float32),  # limits are soft: wild actions overshoot
            state_names=_MOTOR_NAMES,
            action_space=spaces.Box(low, high, dtype=np.float32),
            action_names=_MOTOR_NAMES,
            control_mode="absolute positions of the joints and of the grippers",
        )
        super().__init__(task, interface, **settings)

    def _build(self) -> "Environment":
        return _build_simulation(self.task)

    def _mujoco(self) -> "tuple[mujoco.MjModel, mujoco.MjData]":
        physics = self.simulation.physics
        return physics.model.ptr, physics.data.ptr

    def _begin(self, seed: int) -> None:
        simulation = self.simulation
        from gym_aloha.tasks.sim import BOX_POSE
        from gym_aloha.utils import sample_box_pose, sample_insertion_pose

        # gym-aloha's tasks read where things shall be from a global variable of theirs when they are reset.
        is_cube = self.task == "transfer_cube"
        poses: Any = BOX_POSE
        poses[0] = sample_box_pose(seed) if is_cube else np.concatenate(sample_insertion_pose(seed))
        simulation.reset()

    def _execute(self, action: np.ndarray) -> tuple[float, bool]:
        with self.simulation.physics.suppress_physics_errors():  # a broken simulation ends the episode
            reward = self.simulation.step(np.asarray(action, np.float64)).reward
        return float(reward), reward == SUCCESS_REWARD

    def _surroundings(self) -> Surroundings:
        model = self.model
        return Surroundings(
            self.task,
            model,
            self.data,
            scene_cameras=tuple(model.camera(name).id for name in _SCENE_CAMERAS),
            table_geoms=(model.geom("table").id,),
            table_surface=SURFACE,
            table_bodies=(model.body("table").id,),
            tablecloth=model.geom(_TABLECLOTH).id,
        )

    def _proprioception(self) -> np.ndarray:
        return self.simulation.task.get_qpos(self.simulation.physics).astype(np.float32)


def _build_simulation(task: str) -> "Environment":
    """Build gym-aloha's task without the three large pictures that it renders in every step.

    Raises:
        ValueError: dm_control cannot load the machine's OpenGL.
    """
    with explains_missing_gl():
        from dm_control import mujoco
        from dm_control.mujoco import wrapper
        from dm_control.rl.control import Environment
        from gym_aloha.constants import ASSETS_DIR, DT
        from gym_aloha.tasks import sim

    stock = {"transfer_cube": sim.TransferCubeTask, "insertion": sim.InsertionTask}[task]

    class Unseen(stock):  # pyright: ignore[reportGeneralTypeIssues] (chosen at run time)
        def get_observation(self, physics: mujoco.Physics) -> dict[str, np.ndarray]:
            return {}

    physics = mujoco.Physics.from_model(wrapper.MjModel(_compile(ASSETS_DIR / f"bimanual_viperx_{task}.xml")))
    return Environment(physics, Unseen(), time_limit=float("inf"), control_timestep=DT)


def _compile(scene: Path) -> "mujoco.MjModel":
    """Compile gym-aloha's file, with a tablecloth that nothing touches and nobody sees until a perturbation shows it."""
    import mujoco

    spec = mujoco.MjSpec.from_file(str(scene))
    add_material(spec, _TABLECLOTH, _CLOTH_TEXTURE_SIZE)
    spec.body("table").add_geom(
        name=_TABLECLOTH,
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=_CLOTH_HALF_EXTENTS,
        material=_TABLECLOTH,
        group=HIDDEN_GROUP,
        contype=0,
        conaffinity=0,
        mass=0,
    )
    return spec.compile()
