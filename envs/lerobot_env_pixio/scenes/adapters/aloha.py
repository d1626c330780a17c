"""gym-aloha's scenes: two ViperX arms across a table."""

import mujoco

from lerobot_env_pixio.rendering.textures import package_folder
from lerobot_env_pixio.scenes.blueprint import ArmNames, Blueprint, Parts
from lerobot_env_pixio.scenes.families import Family
from lerobot_env_pixio.simulators.aloha import SURFACE


def _place(model: mujoco.MjModel, data: mujoco.MjData) -> None:
    mujoco.mj_resetDataKeyframe(model, data, 0)


def blueprint(family: Family) -> Blueprint:
    """Return one of the scenes in gym-aloha's `assets`."""
    spec = mujoco.MjSpec.from_file(str(package_folder("gym_aloha") / f"assets/{family.task}.xml"))
    arm_joints = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
    return Blueprint(
        spec=spec,
        place=_place,
        visual_groups=(0, 1, 2),
        arms=tuple(
            ArmNames(
                f"cali_{side}_site1",
                tuple(f"vx300s_{side}/{joint}" for joint in arm_joints),
                (f"vx300s_{side}/left_finger", f"vx300s_{side}/right_finger"),
            )
            for side in ("left", "right")
        ),
        surfaces=(SURFACE,),
        parts=Parts(
            robot=r"^vx300s",
            gripper=r"^vx300s.*(gripper|finger).*\|",
            table=r"^table\|",
        ),
        cameras=("top", "angle", "front_close", "left_pillar", "right_pillar"),
        usual_cameras=3,
        wrist_cameras=("left_wrist", "right_wrist"),
        floor_height=-0.75,
    )
