"""robosuite's tasks."""

import contextlib
import io

import mujoco
import numpy as np

from lerobot_env_pixio.perturbations.distractors import Surface
from lerobot_env_pixio.scenes.blueprint import ArmNames, Blueprint, Parts
from lerobot_env_pixio.scenes.families import Family
from lerobot_env_pixio.simulators.simulation import MODEL_SEED, import_robosuite, numpy_seed


def _environment(family: Family):  # noqa: ANN202 - robosuite has no types
    robosuite = import_robosuite()
    grippers = {} if family.gripper is None else {"gripper_types": family.gripper}
    robots = family.robots[0] if len(family.robots) == 1 else list(family.robots)
    nowhere = contextlib.redirect_stdout(io.StringIO())
    with nowhere, numpy_seed(MODEL_SEED):  # it draws object sizes and marker places from the global generator
        environment = robosuite.make(
            family.task,
            robots=robots,
            has_renderer=False,
            has_offscreen_renderer=False,
            use_camera_obs=False,
            hard_reset=False,
            **grippers,
        )
        environment.reset()
    return environment


def _surfaces(environment) -> tuple[Surface, ...]:  # noqa: ANN001 - robosuite has no types
    if hasattr(environment, "bin1_pos"):
        size = np.array(environment.bin_size if hasattr(environment, "bin_size") else (0.39, 0.49))[:2] / 2 - 0.05
        rise = np.array([0.0, 0.0, 0.02])
        return tuple(Surface(np.array(p) + rise, size) for p in (environment.bin1_pos, environment.bin2_pos))
    half = np.array(environment.table_full_size)[:2] / 2 - 0.06
    return (Surface(np.array(environment.table_offset, float), half),)


def blueprint(family: Family) -> Blueprint:
    """Return the scene of a robosuite environment, as a first reset leaves it."""
    environment = _environment(family)
    spec = mujoco.MjSpec.from_string(environment.model.get_xml())
    placed = environment.sim.model._model  # a reset moves fixed bodies too, such as the door
    positions, quaternions = placed.body_pos.copy(), placed.body_quat.copy()
    qpos = environment.sim.data.qpos.copy()
    cameras = [placed.camera(index).name for index in range(placed.ncam)]
    surfaces = _surfaces(environment)
    environment.close()

    def place(model: mujoco.MjModel, data: mujoco.MjData) -> None:
        model.body_pos[: len(positions)] = positions
        model.body_quat[: len(quaternions)] = quaternions
        data.qpos[:] = qpos

    return Blueprint(
        spec=spec,
        place=place,
        visual_groups=(1,),
        arms=tuple(
            ArmNames(f"gripper{index}_right_grip_site", (f"robot{index}_",), (f"gripper{index}_",))
            for index in range(len(family.robots))
        ),
        surfaces=surfaces,
        parts=Parts(
            robot=r"^[^|]*(robot|gripper|mount)",
            gripper=r"^gripper",
            table=r"\|(table|bin)",
            floor=r"\|floor$",
            wall=r"\|wall",
        ),
        cameras=("agentview", *(c for c in cameras if c != "agentview" and "eye_in_hand" not in c)),
        usual_cameras=1,
        wrist_cameras=tuple(c for c in cameras if "eye_in_hand" in c),
        has_walls=True,
    )
