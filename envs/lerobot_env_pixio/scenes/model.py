"""Compile a scene family once into a MuJoCo model that can be re-randomised in place."""

import contextlib
import importlib.util
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np

from lerobot_env_pixio.scenes.families import Family

# found without importing robosuite, which is slow and prints warnings
_ROBOSUITE = importlib.util.find_spec("robosuite")
assert _ROBOSUITE is not None and _ROBOSUITE.origin is not None
ASSETS = Path(_ROBOSUITE.origin).parent / "models" / "assets"

HIDDEN_GROUP = 4  # geoms of this group are never drawn
VISUAL_GROUP = 1  # robosuite's group of the geoms meant for the eye
FLAT_TEXTURES = 3
CUBE_TEXTURES = 3
TEXTURE_SIZE = 256
CUBE_TEXTURE_SIZE = 128
LIGHTS = 4
PRIMITIVES = 7
PROPS = 4
GRASP_SNAPSHOTS = 10
_MESH_SCALES = {"can": 1.0, "bread": 0.8, "lemon": 1.0, "milk": 0.8, "cereal": 0.8, "bottle": 1.0}


@dataclass(frozen=True)
class Arm:
    """Where one robot arm's joints live in the model, and postures to start from."""

    site: int
    joints: np.ndarray
    qpos: np.ndarray
    dofs: np.ndarray
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
class Surface:
    """A horizontal rectangle that objects stand on: centre (3,) and half extents (2,), metres."""

    centre: np.ndarray
    half: np.ndarray


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
    surfaces: tuple[Surface, ...]
    focus: np.ndarray
    floor_geoms: np.ndarray
    wall_geoms: np.ndarray
    table_geoms: np.ndarray
    robot_geoms: np.ndarray
    object_geoms: np.ndarray
    cameras: dict[str, int]
    wrist_cameras: tuple[int, ...]
    camera: int
    task_lights: np.ndarray
    lights: np.ndarray
    flat_materials: np.ndarray
    cube_materials: np.ndarray
    skybox: int


def _robosuite_environment(family: Family):  # noqa: ANN202 - robosuite has no types
    logging.getLogger("robosuite_logs").disabled = True  # it warns of optional parts that nobody here misses
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        import robosuite

        grippers = {} if family.gripper is None else {"gripper_types": family.gripper}
        robots = list(family.robots) if len(family.robots) > 1 else family.robots[0]
        np.random.seed(0)  # robosuite draws object sizes and marker places from the global generator
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


def _add_stock(spec: mujoco.MjSpec) -> None:
    """Add the distractors, background props, lights, materials and the camera that frames are taken with."""
    for index in range(FLAT_TEXTURES + CUBE_TEXTURES):
        flat = index < FLAT_TEXTURES
        name = f"pixio_{'flat' if flat else 'cube'}{index}"
        size = TEXTURE_SIZE if flat else CUBE_TEXTURE_SIZE
        spec.add_texture(
            name=name,
            type=mujoco.mjtTexture.mjTEXTURE_2D if flat else mujoco.mjtTexture.mjTEXTURE_CUBE,
            builtin=mujoco.mjtBuiltin.mjBUILTIN_FLAT,
            width=size,
            height=size,
        )
        textures = [""] * mujoco.mjtTextureRole.mjNTEXROLE
        textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
        spec.add_material(name=name, textures=textures, texuniform=flat, reflectance=0.0)
    for index in range(LIGHTS):
        kind = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL if index < 2 else mujoco.mjtLightType.mjLIGHT_SPOT
        spec.worldbody.add_light(name=f"pixio_light{index}", type=kind, active=False, castshadow=False)
    spec.worldbody.add_camera(name="pixio_camera")
    look = {"group": VISUAL_GROUP, "contype": 0, "conaffinity": 0}
    for name, scale in _MESH_SCALES.items():
        spec.add_mesh(name=f"pixio_{name}", file=str(ASSETS / "objects" / "meshes" / f"{name}.stl"))
        spec.mesh(f"pixio_{name}").scale = [scale, scale, scale]
    shapes = [("distractor", {"type": mujoco.mjtGeom.mjGEOM_BOX, "size": [0.02] * 3})] * PRIMITIVES
    shapes += [("distractor", {"type": mujoco.mjtGeom.mjGEOM_MESH, "meshname": f"pixio_{n}"}) for n in _MESH_SCALES]
    shapes += [("prop", {"type": mujoco.mjtGeom.mjGEOM_BOX, "size": [0.2] * 3})] * PROPS
    for index, (kind, shape) in enumerate(shapes):
        body = spec.worldbody.add_body(name=f"pixio_{kind}{index}", mocap=True)
        body.add_geom(**look, **shape)


def _joint_addresses(model: mujoco.MjModel, prefix: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    joints = np.array([j for j in range(model.njnt) if model.joint(j).name.startswith(prefix)], int)
    return joints, model.jnt_qposadr[joints], model.jnt_dofadr[joints]


def _gripper_postures(model: mujoco.MjModel, qpos: np.ndarray, prefix: str) -> np.ndarray:
    """Drive the gripper from one end of its actuators to the other, without gravity or contact."""
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    gravity, flags = model.opt.gravity.copy(), model.opt.disableflags
    model.opt.gravity[:] = 0
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT
    addresses = _joint_addresses(model, prefix)[1]
    motors = [a for a in range(model.nu) if model.actuator(a).name.startswith(prefix)]
    postures = [qpos[addresses]]
    steps = max(1, int(0.6 / model.opt.timestep / GRASP_SNAPSHOTS))
    for end in (0, 1):
        for _ in range(GRASP_SNAPSHOTS):
            data.ctrl[motors] = model.actuator_ctrlrange[motors, end]
            mujoco.mj_step(model, data, steps)
            postures.append(data.qpos[addresses].copy())
    model.opt.gravity[:], model.opt.disableflags = gravity, flags
    return np.array(postures)


def _arm(model: mujoco.MjModel, data: mujoco.MjData, index: int) -> Arm:
    joints, qpos, dofs = _joint_addresses(model, f"robot{index}_")
    site = model.site(f"gripper{index}_right_grip_site").id
    prefix = f"gripper{index}_"
    return Arm(
        site=site,
        joints=joints,
        qpos=qpos,
        dofs=dofs,
        gripper_qpos=_joint_addresses(model, prefix)[1],
        gripper_postures=_gripper_postures(model, data.qpos.copy(), prefix),
        site_rotation=data.site_xmat[site].reshape(3, 3).copy(),
    )


def _surfaces(environment) -> tuple[Surface, ...]:  # noqa: ANN001 - robosuite has no types
    if hasattr(environment, "bin1_pos"):
        size = np.array(environment.bin_size if hasattr(environment, "bin_size") else (0.39, 0.49))[:2] / 2 - 0.05
        rise = np.array([0.0, 0.0, 0.02])
        return tuple(Surface(np.array(p) + rise, size) for p in (environment.bin1_pos, environment.bin2_pos))
    half = np.array(environment.table_full_size)[:2] / 2 - 0.06
    return (Surface(np.array(environment.table_offset, float), half),)


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
        geoms = [g for g in np.flatnonzero(model.geom_bodyid == body) if model.geom_group[g] == VISUAL_GROUP]
        single = len(geoms) == 1 and model.geom_type[geoms[0]] != mujoco.mjtGeom.mjGEOM_MESH
        height = _height_above_lowest_point(model, data, body)
        rotation = data.xmat[body].reshape(3, 3).copy()
        found.append(Movable(body, address, None, int(geoms[0]) if single else None, height, rotation))
    return tuple(found)


def _stock(model: mujoco.MjModel, prefix: str) -> tuple[Movable, ...]:
    bodies = [b for b in range(model.nbody) if model.body(b).name.startswith(prefix)]
    return tuple(
        Movable(b, None, int(model.body_mocapid[b]), int(model.body_geomadr[b]), 0.0, np.eye(3)) for b in bodies
    )


def build_scene(family: Family) -> Scene:
    """Compile a family's robosuite environment together with the stock of distractors and lights."""
    environment = _robosuite_environment(family)
    spec = mujoco.MjSpec.from_string(environment.model.get_xml())
    _add_stock(spec)
    model, nominal = spec.compile(), spec.compile()
    placed = environment.sim.model._model  # a reset moves fixed bodies too, such as the door
    for compiled in (model, nominal):
        compiled.body_pos[: placed.nbody] = placed.body_pos
        compiled.body_quat[: placed.nbody] = placed.body_quat
    data = mujoco.MjData(model)
    qpos = environment.sim.data.qpos.copy()
    data.qpos[:] = qpos
    mujoco.mj_forward(model, data)
    surfaces = _surfaces(environment)
    environment.close()

    geoms = range(model.ngeom)
    visual = [g for g in geoms if model.geom_group[g] == VISUAL_GROUP]
    names = {g: model.geom(g).name or model.body(model.geom_bodyid[g]).name for g in visual}
    owners = {g: model.body(model.geom_bodyid[g]).name for g in visual}
    robot = [g for g in visual if any(part in owners[g] for part in ("robot", "gripper", "mount"))]
    walls = [g for g in visual if names[g].startswith("wall")]
    floor = [g for g in visual if names[g] == "floor"]
    tables = [g for g in visual if names[g].startswith(("table", "bin"))]
    stock = [g for g in visual if owners[g].startswith("pixio_")]
    taken = {*robot, *walls, *floor, *tables, *stock}
    handle = [b for b in range(model.nbody) if "latch" in model.body(b).name]
    cameras = {model.camera(c).name: c for c in range(model.ncam)}
    lights = {model.light(i).name: i for i in range(model.nlight)}
    focus = data.xpos[handle[0]].copy() if handle else np.mean([s.centre for s in surfaces], axis=0)
    return Scene(
        model=model,
        data=data,
        nominal=nominal,
        qpos=qpos,
        arms=tuple(_arm(model, data, index) for index in range(len(family.robots))),
        objects=_movables(model, data),
        distractors=_stock(model, "pixio_distractor"),
        props=_stock(model, "pixio_prop"),
        surfaces=surfaces,
        focus=focus,
        floor_geoms=np.array(floor, int),
        wall_geoms=np.array(walls, int),
        table_geoms=np.array(tables, int),
        robot_geoms=np.array(robot, int),
        object_geoms=np.array([g for g in visual if g not in taken], int),
        cameras={n: c for n, c in cameras.items() if n != "pixio_camera" and "eye_in_hand" not in n},
        wrist_cameras=tuple(c for n, c in cameras.items() if "eye_in_hand" in n),
        camera=cameras["pixio_camera"],
        task_lights=np.array([i for n, i in lights.items() if not n.startswith("pixio_")], int),
        lights=np.array([i for n, i in lights.items() if n.startswith("pixio_")], int),
        flat_materials=np.array([m for m in range(model.nmat) if model.mat(m).name.startswith("pixio_flat")]),
        cube_materials=np.array([m for m in range(model.nmat) if model.mat(m).name.startswith("pixio_cube")]),
        skybox=int(np.flatnonzero(model.tex_type == mujoco.mjtTexture.mjTEXTURE_SKYBOX)[0]),
    )
