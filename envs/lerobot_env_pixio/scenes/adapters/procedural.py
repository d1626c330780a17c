"""Scenes of primitives and the stock alone: a table, a table with a made-up arm, a room."""

import mujoco
import numpy as np

from lerobot_env_pixio.perturbations.distractors import Surface
from lerobot_env_pixio.scenes.blueprint import ArmNames, Blueprint, Parts
from lerobot_env_pixio.scenes.families import Family

TABLE_TOP = "table_top"
_FLOOR = -0.75
_ARM_HOME = {"waist": 0.0, "shoulder": 0.4, "elbow": 1.6, "roll": 0.0, "wrist": np.pi - 2.0, "turn": 0.0}


def _add_table(spec: mujoco.MjSpec) -> None:
    table = spec.worldbody.add_body(name="table")
    box = mujoco.mjtGeom.mjGEOM_BOX
    table.add_geom(name=TABLE_TOP, type=box, size=[0.6, 0.5, 0.02], pos=[0, 0, -0.02])
    for index, (x, y) in enumerate(((1, 1), (1, -1), (-1, 1), (-1, -1))):
        half = -_FLOOR / 2 - 0.02
        place = [0.5 * x, 0.4 * y, _FLOOR + half]
        table.add_geom(name=f"table_leg{index}", type=box, size=[0.03, 0.03, half], pos=place)


def _add_arm(spec: mujoco.MjSpec) -> None:
    """Add six hinges from base to gripper; all links stand upright on each other at zero."""
    capsule, box = mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_BOX
    body = spec.worldbody.add_body(name="arm_base", pos=[-0.45, 0, 0])
    body.add_geom(type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[0.07, 0.04, 0], pos=[0, 0, 0.04])
    lengths = {"waist": 0.12, "shoulder": 0.35, "elbow": 0.18, "roll": 0.17, "wrist": 0.06, "turn": 0.0}
    axes = {"waist": 2, "shoulder": 1, "elbow": 1, "roll": 2, "wrist": 1, "turn": 2}
    height = 0.05
    for index, (name, length) in enumerate(lengths.items()):
        body = body.add_body(name=f"arm_{name}", pos=[0, 0, height])
        axis = np.eye(3)[axes[name]]
        body.add_joint(name=f"arm_{name}", axis=axis, limited=True, range=[-3.0, 3.0])
        if length:
            radius = 0.05 - 0.006 * index
            body.add_geom(type=capsule, size=[radius, 0, 0], fromto=[0, 0, 0, 0, 0, length])
        height = length
    hand = body.add_body(name="arm_palm")
    hand.add_geom(type=box, size=[0.03, 0.06, 0.015], pos=[0, 0, 0.02])
    hand.add_site(name="grip", pos=[0, 0, 0.085])
    for side in (-1, 1):
        finger = hand.add_body(name=f"arm_finger{side}", pos=[0, side * 0.01, 0.065])
        finger.add_joint(
            name=f"finger{side}", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[0, side, 0], limited=True, range=[0, 0.045]
        )
        finger.add_geom(type=box, size=[0.01, 0.006, 0.03])


def _place(model: mujoco.MjModel, data: mujoco.MjData) -> None:
    for index in range(model.njnt):
        name = model.joint(index).name
        if name.startswith("arm_"):
            data.qpos[model.jnt_qposadr[index]] = _ARM_HOME[name.removeprefix("arm_")]


def blueprint(family: Family) -> Blueprint:
    """Return a scene for one of the tasks `table`, `arm` and `room`."""
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    spec.worldbody.add_light(
        pos=[0.5, -0.5, 2],
        dir=[-0.2, 0.2, -1],
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        diffuse=[0.6] * 3,
        castshadow=True,
    )
    front = spec.worldbody.add_camera(name="front", pos=[1.1, 0, 0.75], fovy=45)
    front.alt.xyaxes = [0, 1, 0, -0.56, 0, 0.83]
    side = spec.worldbody.add_camera(name="side", pos=[0, -1.1, 0.6], fovy=45)
    side.alt.xyaxes = [1, 0, 0, 0, 0.48, 0.88]
    surface, floor_height, arms, scale = Surface(np.zeros(3), np.array([0.32, 0.28])), _FLOOR, (), 1.0
    if family.task == "room":
        surface, floor_height, scale = Surface(np.zeros(3), np.array([1.1, 1.1])), 0.0, 3.5
    else:
        _add_table(spec)
    if family.task == "arm":
        _add_arm(spec)
        arms = (ArmNames("grip", ("arm_",), ("finger",)),)
    return Blueprint(
        spec=spec,
        place=_place,
        visual_groups=(0,),
        arms=arms,
        surfaces=(surface,),
        parts=Parts(
            robot=r"^arm_",
            gripper=r"^arm_(palm|finger)",
            table=r"^table\|",
        ),
        cameras=("front", "side"),
        usual_cameras=1,
        wrist_cameras=(),
        floor_height=floor_height,
        scale=scale,
    )
