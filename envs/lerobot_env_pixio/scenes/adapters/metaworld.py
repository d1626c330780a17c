"""Meta-World's scenes: a Sawyer arm before a table with one task's objects and furniture."""

import mujoco

from lerobot_env_pixio.rendering.textures import package_folder
from lerobot_env_pixio.scenes.blueprint import ArmNames, Blueprint, Parts
from lerobot_env_pixio.scenes.families import Family
from lerobot_env_pixio.simulators.metaworld import SURFACE

_HAND_HOME = (0.0, 0.6, 0.2)  # SawyerXYZEnv.hand_init_pos
_HAND_QUATERNION = (1.0, 0.0, 1.0, 0.0)  # what SawyerXYZEnv keeps the hand's mocap body at
_SETTLING_STEPS = 250  # SawyerXYZEnv._reset_hand: 50 times 5
_STILL = {"tablelink", "RetainingWall", "base", "mocap"}


def _place(model: mujoco.MjModel, data: mujoco.MjData) -> None:
    """Let the hand follow its mocap body home, as the environment's reset does; objects stay where they are."""
    start = data.qpos.copy()
    hand = model.body("mocap").mocapid[0]
    data.mocap_pos[hand] = _HAND_HOME
    data.mocap_quat[hand] = _HAND_QUATERNION
    mujoco.mj_step(model, data, _SETTLING_STEPS)
    arm = [model.joint(f"right_j{index}").qposadr[0] for index in range(7)]
    start[arm] = data.qpos[arm]
    data.qpos[:] = start


def blueprint(family: Family) -> Blueprint:
    """Return one of the scenes in Meta-World's `assets/sawyer_xyz`."""
    spec = mujoco.MjSpec.from_file(str(package_folder("metaworld") / f"assets/sawyer_xyz/{family.task}.xml"))
    furniture = [b.name for b in spec.worldbody.bodies if b.name and not b.joints and b.name not in _STILL]
    return Blueprint(
        spec=spec,
        place=_place,
        visual_groups=(0, 1, 2),
        arms=(ArmNames("endEffector", ("right_j",), ("r_close", "l_close")),),
        surfaces=(SURFACE,),
        parts=Parts(
            robot=r"^(base|controller_box|pedestal(_feet)?|torso|right_\w+|head(_camera)?|screen|hand|mocap"
            r"|(left|right)(claw|pad))\|",
            gripper=r"^(hand|right_hand|(left|right)(claw|pad))\|",
            table=r"^(tablelink|RetainingWall)\|",
            floor=r"\|floor$",
        ),
        cameras=("corner2", "corner", "corner3", "topview"),
        usual_cameras=3,
        wrist_cameras=("gripperPOV", "behindGripper"),
        furniture=tuple(furniture),
    )
