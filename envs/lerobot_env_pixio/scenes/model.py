"""Compile a scene family once into a MuJoCo model that can be re-randomised in place."""

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import mujoco
import numpy as np

from lerobot_env_pixio.perturbations.distractors import Surface
from lerobot_env_pixio.scenes.adapters import BLUEPRINTS
from lerobot_env_pixio.scenes.blueprint import HIDDEN_GROUP, VISUAL_GROUP, ArmNames, Blueprint
from lerobot_env_pixio.scenes.families import Family
from lerobot_env_pixio.scenes.stock import add_stock

GRASP_SNAPSHOTS = 10
NEAR, FAR = 0.01, 50.0  # metres; what lies between is drawn


class SceneClass(IntEnum):
    """What a pixel of a segmentation shows."""

    BACKGROUND = 0  # the sky, where nothing is
    FLOOR = 1
    WALL = 2
    TABLE = 3  # tables, bins, and rims around them
    ROBOT = 4
    GRIPPER = 5
    OBJECT = 6  # the task's own objects and furniture
    DISTRACTOR = 7  # anything else that stands around, near or far


@dataclass(frozen=True)
class Arm:
    """Where one robot arm's joints live in the model, and postures to start from."""

    site: int
    joints: np.ndarray
    qpos: np.ndarray
    dofs: np.ndarray
    gripper_joints: np.ndarray
    gripper_qpos: np.ndarray
    gripper_postures: np.ndarray
    site_rotation: np.ndarray


@dataclass(frozen=True)
class Movable:
    """A body that an arrangement may put anywhere: a task's object or a distractor.

    Attributes:
        body: Body id.
        qpos: Address of its free joint, or None for a mocap body.
        mocap: Mocap id, or None for a free body.
        geom: The one primitive or mesh geom that may be resized, or None for a composite object.
        height: Height of the body's frame above the surface it rests on, for a composite object, in metres.
        rotation: Rotation (3, 3) in which it rests.
    """

    body: int
    qpos: int | None
    mocap: int | None
    geom: int | None
    height: float
    rotation: np.ndarray


@dataclass(frozen=True)
class Scene:
    """A compiled family with the ids that the randomisation needs and the values it starts from."""

    model: mujoco.MjModel
    data: mujoco.MjData
    nominal: mujoco.MjModel
    qpos: np.ndarray
    arms: tuple[Arm, ...]
    objects: tuple[Movable, ...]
    distractors: tuple[Movable, ...]
    props: tuple[Movable, ...]
    furniture: tuple[int, ...]
    furniture_joints: tuple[int, ...]
    reshaped_geoms: tuple[int, ...]
    surfaces: tuple[Surface, ...]
    focus: np.ndarray
    scale: float
    is_a_task: bool
    classes: np.ndarray
    floor_geoms: np.ndarray
    wall_geoms: np.ndarray
    table_geoms: np.ndarray
    robot_geoms: np.ndarray
    robot_bodies: np.ndarray
    object_geoms: np.ndarray
    usual_cameras: tuple[int, ...]
    other_cameras: tuple[int, ...]
    wrist_cameras: tuple[int, ...]
    camera: int
    task_lights: np.ndarray
    lights: np.ndarray
    flat_materials: np.ndarray
    cube_materials: np.ndarray
    skybox: int


def _named(access: Callable[[int], Any], count: int, prefixes: str | tuple[str, ...]) -> np.ndarray:
    """Return the ids (N,) of those of the model's parts, by `access`, whose names start with one of the prefixes."""
    return np.array([i for i in range(count) if access(i).name.startswith(prefixes)], int)


def _driven_postures(model: mujoco.MjModel, qpos: np.ndarray, addresses: np.ndarray, motors: np.ndarray) -> np.ndarray:
    """Drive the gripper from one end of its actuators to the other, without gravity or contact."""
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    gravity, flags = model.opt.gravity.copy(), model.opt.disableflags
    model.opt.gravity[:] = 0
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT
    postures = [qpos[addresses]]
    steps = max(1, int(0.6 / model.opt.timestep / GRASP_SNAPSHOTS))
    for end in (0, 1):
        for _ in range(GRASP_SNAPSHOTS):
            data.ctrl[motors] = model.actuator_ctrlrange[motors, end]
            mujoco.mj_step(model, data, steps)
            postures.append(data.qpos[addresses].copy())
    model.opt.gravity[:], model.opt.disableflags = gravity, flags
    return np.array(postures)


def _gripper_postures(model: mujoco.MjModel, qpos: np.ndarray, names: ArmNames, joints: np.ndarray) -> np.ndarray:
    """Return joint positions (N, J) from open to closed."""
    motors = _named(model.actuator, model.nu, names.gripper_joints)
    if len(motors):
        return _driven_postures(model, qpos, model.jnt_qposadr[joints], motors)
    # fingers on sliders, mirrored: joints whose positive side points the other way run backwards
    low, high = model.jnt_range[joints].T
    backwards = np.abs(high) < np.abs(low)
    start, end = np.where(backwards, high, low), np.where(backwards, low, high)
    return start + np.linspace(0, 1, 2 * GRASP_SNAPSHOTS)[:, None] * (end - start)


def _arm(model: mujoco.MjModel, data: mujoco.MjData, names: ArmNames) -> Arm:
    joints, gripper_joints = (_named(model.joint, model.njnt, of) for of in (names.joints, names.gripper_joints))
    site = model.site(names.site).id
    return Arm(
        site=site,
        joints=joints,
        qpos=model.jnt_qposadr[joints],
        dofs=model.jnt_dofadr[joints],
        gripper_joints=gripper_joints,
        gripper_qpos=model.jnt_qposadr[gripper_joints],
        gripper_postures=_gripper_postures(model, data.qpos.copy(), names, gripper_joints),
        site_rotation=data.site_xmat[site].reshape(3, 3).copy(),
    )


def _height_above_lowest_point(model: mujoco.MjModel, data: mujoco.MjData, body: int) -> float:
    """Height of a body's frame above the lowest corner of the boxes around its visual geoms."""
    corners = [
        data.geom_xpos[g][2] + axis @ model.geom_aabb[g][:3] - np.abs(axis) @ model.geom_aabb[g][3:]
        for g in range(model.ngeom)
        if model.body_rootid[model.geom_bodyid[g]] == body and model.geom_group[g] == VISUAL_GROUP
        for axis in [data.geom_xmat[g].reshape(3, 3)[2]]
    ]
    return float(data.xpos[body][2] - min(corners))


def _movables(model: mujoco.MjModel, data: mujoco.MjData) -> tuple[Movable, ...]:
    found = []
    for joint in np.flatnonzero(model.jnt_type == mujoco.mjtJoint.mjJNT_FREE):
        body, address = int(model.jnt_bodyid[joint]), int(model.jnt_qposadr[joint])
        shown = model.geom_group == VISUAL_GROUP
        own = np.flatnonzero(shown & (model.geom_bodyid == body))
        single = len(own) == 1 == (shown & (model.body_rootid[model.geom_bodyid] == body)).sum()
        single = single and model.geom_type[own[0]] != mujoco.mjtGeom.mjGEOM_MESH
        height = _height_above_lowest_point(model, data, body)
        rotation = data.xmat[body].reshape(3, 3).copy()
        found.append(Movable(body, address, None, int(own[0]) if single else None, height, rotation))
    return tuple(found)


def _stock(model: mujoco.MjModel, prefix: str) -> tuple[Movable, ...]:
    return tuple(
        Movable(int(b), None, int(model.body_mocapid[b]), int(model.body_geomadr[b]), 0.0, np.eye(3))
        for b in _named(model.body, model.nbody, prefix)
    )


def _sort_groups(model: mujoco.MjModel, visual_groups: tuple[int, ...]) -> None:
    """Leave two groups of geoms: those that are seen, and all others."""
    materials = model.geom_matid
    clear = np.where(materials >= 0, model.mat_rgba[materials, 3] if model.nmat else 1.0, 1.0) == 0
    seen = np.isin(model.geom_group, visual_groups) & (model.geom_rgba[:, 3] > 0) & ~clear
    model.geom_group[:] = np.where(seen, VISUAL_GROUP, HIDDEN_GROUP)


def _classify(model: mujoco.MjModel, blueprint: Blueprint) -> np.ndarray:
    """Return the `SceneClass` of every geom."""
    parts = blueprint.parts
    patterns = (  # first come, first served
        (r"^pixio_", SceneClass.DISTRACTOR),
        (parts.gripper, SceneClass.GRIPPER),
        (parts.robot, SceneClass.ROBOT),
        (parts.floor, SceneClass.FLOOR),
        (parts.wall, SceneClass.WALL),
        (parts.table, SceneClass.TABLE),
    )
    classes = np.full(model.ngeom, SceneClass.OBJECT)
    for geom in range(model.ngeom):
        body = model.body(model.geom_bodyid[geom]).name
        label = f"{body}|{model.geom(geom).name or body}"
        classes[geom] = next((kind for pattern, kind in patterns if re.search(pattern, label)), SceneClass.OBJECT)
    return classes


def build_scene(family: Family) -> Scene:
    """Compile a family's scene together with the stock of distractors, surroundings and lights."""
    blueprint = BLUEPRINTS[family.simulator](family)
    centre = np.mean([s.centre for s in blueprint.surfaces], axis=0)
    add_stock(blueprint, centre)
    model = blueprint.spec.compile()
    _sort_groups(model, blueprint.visual_groups)
    model.vis.map.znear, model.vis.map.zfar = NEAR / model.stat.extent, FAR / model.stat.extent
    data = mujoco.MjData(model)
    blueprint.place(model, data)
    qpos = data.qpos.copy()
    mujoco.mj_forward(model, data)
    arms = tuple(_arm(model, data, names) for names in blueprint.arms)
    classes = _classify(model, blueprint)
    handle = [b for b in range(model.nbody) if "latch" in model.body(b).name]
    shown = model.geom_group == VISUAL_GROUP
    hinged = np.isin(model.jnt_type, (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE))
    owned = {j for arm in arms for j in (*arm.joints, *arm.gripper_joints)}
    reshaped = (SceneClass.TABLE, SceneClass.ROBOT) if family.simulator == "procedural" else ()
    cameras = tuple(model.camera(name).id for name in blueprint.cameras)
    robot = np.flatnonzero(shown & np.isin(classes, (SceneClass.ROBOT, SceneClass.GRIPPER)))
    lights = _named(model.light, model.nlight, "pixio_")
    return Scene(
        model=model,
        data=data,
        nominal=copy.deepcopy(model),
        qpos=qpos,
        arms=arms,
        objects=_movables(model, data),
        distractors=_stock(model, "pixio_distractor"),
        props=_stock(model, "pixio_prop"),
        furniture=tuple(model.body(name).id for name in blueprint.furniture),
        furniture_joints=tuple(int(j) for j in np.flatnonzero(hinged) if j not in owned),
        reshaped_geoms=tuple(int(g) for g in np.flatnonzero(shown & np.isin(classes, reshaped))),
        surfaces=blueprint.surfaces,
        focus=data.xpos[handle[0]].copy() if handle else centre,
        scale=blueprint.scale,
        is_a_task=family.simulator != "procedural",
        classes=classes,
        floor_geoms=np.flatnonzero(classes == SceneClass.FLOOR),
        wall_geoms=np.flatnonzero(classes == SceneClass.WALL),
        table_geoms=np.flatnonzero(shown & (classes == SceneClass.TABLE)),
        robot_geoms=robot,
        robot_bodies=np.unique(model.geom_bodyid[robot]),
        object_geoms=np.flatnonzero(shown & (classes == SceneClass.OBJECT)),
        usual_cameras=cameras[: blueprint.usual_cameras],
        other_cameras=cameras[blueprint.usual_cameras :] or cameras,
        wrist_cameras=tuple(model.camera(name).id for name in blueprint.wrist_cameras),
        camera=model.camera("pixio_camera").id,
        task_lights=np.setdiff1d(np.arange(model.nlight), lights),
        lights=lights,
        flat_materials=_named(model.mat, model.nmat, "pixio_flat"),
        cube_materials=_named(model.mat, model.nmat, "pixio_cube"),
        skybox=int(np.flatnonzero(model.tex_type == mujoco.mjtTexture.mjTEXTURE_SKYBOX)[0]),
    )
