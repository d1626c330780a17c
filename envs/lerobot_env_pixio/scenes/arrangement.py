"""Random arrangements: robot posture, gripper opening, objects on the table, in the air, in the gripper."""

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from lerobot_env_pixio.perturbations.distractors import Surface
from lerobot_env_pixio.scenes.blueprint import HIDDEN_GROUP, VISUAL_GROUP
from lerobot_env_pixio.scenes.model import Arm, Movable, Scene, SceneClass

_PRIMITIVE_TYPES = (
    mujoco.mjtGeom.mjGEOM_BOX,
    mujoco.mjtGeom.mjGEOM_CYLINDER,
    mujoco.mjtGeom.mjGEOM_ELLIPSOID,
    mujoco.mjtGeom.mjGEOM_CAPSULE,
    mujoco.mjtGeom.mjGEOM_SPHERE,
)
_FAR_AWAY = np.array([0.0, 0.0, -20.0])


def about_z(angle: float) -> np.ndarray:
    """Return the rotation matrix (3, 3) about the vertical by an angle in radians."""
    return Rotation.from_rotvec([0.0, 0.0, angle]).as_matrix()


def small_rotation(rng: np.random.Generator, degrees: float) -> np.ndarray:
    """Return a rotation about a random axis by a normally distributed angle of that standard deviation."""
    axis = rng.normal(size=3)
    return Rotation.from_rotvec(np.radians(degrees) * rng.normal() * axis / np.linalg.norm(axis)).as_matrix()


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """Return a uniformly distributed rotation matrix (3, 3)."""
    return Rotation.from_quat(rng.normal(size=4), scalar_first=True).as_matrix()


def quaternion_of(matrix: np.ndarray) -> np.ndarray:
    """Return the quaternion (4,), wxyz, of a rotation matrix (3, 3)."""
    return Rotation.from_matrix(matrix).as_quat(scalar_first=True)


def _solve_posture(scene: Scene, arm: Arm, position: np.ndarray, rotation: np.ndarray | None) -> None:
    """Move an arm's joints so that its grip site reaches a pose: damped least squares, 15 steps.

    Args:
        scene: The scene; its `data.qpos` is where the search starts and ends.
        arm: The arm to move.
        position: Wanted place of the grip site (3,), metres, world frame.
        rotation: Wanted rotation (3, 3), or None when any will do.
    """
    model, data = scene.model, scene.data
    jacobian = np.zeros((6, model.nv))
    limits = model.jnt_range[arm.joints]
    limited = model.jnt_limited[arm.joints].astype(bool)
    rows = 6 if rotation is not None else 3
    for _ in range(15):
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], arm.site)
        error = np.zeros(6)
        error[:3] = position - data.site_xpos[arm.site]
        if rotation is not None:
            turn = quaternion_of(rotation @ data.site_xmat[arm.site].reshape(3, 3).T)
            mujoco.mju_quat2Vel(error[3:], turn, 2.0)
        j = jacobian[:rows, arm.dofs]
        step = j.T @ np.linalg.solve(j @ j.T + 0.01 * np.eye(rows), error[:rows])
        posture = data.qpos[arm.qpos] + np.clip(step, -0.4, 0.4)
        data.qpos[arm.qpos] = np.where(limited, np.clip(posture, limits[:, 0], limits[:, 1]), posture)
    mujoco.mj_kinematics(model, data)


def _place_arm(scene: Scene, arm: Arm, surface: Surface, spread: float, rng: np.random.Generator) -> None:
    data = scene.data
    for _ in range(6):
        data.qpos[arm.qpos] = scene.qpos[arm.qpos] + rng.normal(0, rng.choice([0.05, 0.3]), len(arm.qpos))
        reach = spread * surface.half
        height = rng.choice([rng.uniform(0.005, 0.06), rng.uniform(0.03, 0.2), rng.uniform(0.15, 0.5)])
        target = surface.centre + np.array([*rng.uniform(-reach, reach), height])
        rotation = about_z(rng.uniform(-1.6, 1.6)) @ small_rotation(rng, rng.choice([2, 15, 40])) @ arm.site_rotation
        _solve_posture(scene, arm, target, rotation if rng.random() < 0.9 else None)
        if data.site_xpos[arm.site][2] > surface.centre[2] + 0.003:
            return
    data.qpos[arm.qpos] = scene.qpos[arm.qpos]
    mujoco.mj_kinematics(scene.model, data)


def _resize(scene: Scene, movable: Movable, distractor: bool, rng: np.random.Generator) -> None:
    """Draw shape and size of a primitive, in place."""
    model, geom = scene.model, movable.geom
    if geom is None or scene.nominal.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH:
        return
    if not distractor:
        _set_size(scene, geom, scene.nominal.geom_size[geom] * rng.uniform(0.75, 1.4))
        return
    kind = _PRIMITIVE_TYPES[rng.choice(len(_PRIMITIVE_TYPES), p=[0.5, 0.2, 0.1, 0.1, 0.1])]
    side = scene.scale * rng.uniform(0.012, 0.045)
    cubic = rng.random() < 0.5
    model.geom_type[geom] = kind
    _set_size(scene, geom, np.full(3, side) if cubic else side * rng.uniform(0.4, 2.2, 3))


def _set_size(scene: Scene, geom: int, size: np.ndarray) -> None:
    """Give a primitive another size (3,), and keep the box around it, by which geoms out of view are left out."""
    scene.model.geom_size[geom] = size
    half = size
    match scene.model.geom_type[geom]:
        case mujoco.mjtGeom.mjGEOM_CYLINDER:
            half = size[[0, 0, 1]]
        case mujoco.mjtGeom.mjGEOM_CAPSULE:
            half = size[0] + [0.0, 0.0, size[1]]
        case mujoco.mjtGeom.mjGEOM_SPHERE:
            half = size[[0, 0, 0]]
    scene.model.geom_aabb[geom, 3:] = half


def _put(scene: Scene, movable: Movable, position: np.ndarray, rotation: np.ndarray) -> None:
    if movable.mocap is not None:
        scene.data.mocap_pos[movable.mocap] = position
        scene.data.mocap_quat[movable.mocap] = quaternion_of(rotation)
    else:
        assert movable.qpos is not None
        scene.data.qpos[movable.qpos : movable.qpos + 3] = position
        scene.data.qpos[movable.qpos + 3 : movable.qpos + 7] = quaternion_of(rotation)


def _rest(scene: Scene, movable: Movable, spot: np.ndarray, rng: np.random.Generator, tumbled: bool = False) -> None:
    """Stand an object at a spot (3,) of a surface, turned about the vertical."""
    rotation = about_z(rng.uniform(-np.pi, np.pi))
    lift = movable.height
    if movable.geom is not None:
        tip = np.roll(np.eye(3), rng.integers(3), axis=0) if tumbled else np.eye(3)
        rotation = rotation @ tip
        lift = float(np.abs(rotation[2]) @ scene.model.geom_aabb[movable.geom, 3:])
    else:
        rotation = rotation @ movable.rotation
    _put(scene, movable, spot + np.array([0.0, 0.0, lift]), rotation)


def _place_objects(scene: Scene, movables: list[Movable], rng: np.random.Generator) -> None:
    """Put each object on a surface, near or into a gripper, or into the air, first come first served."""
    grips = [(scene.data.site_xpos[a.site].copy(), scene.data.site_xmat[a.site].reshape(3, 3)) for a in scene.arms]
    free_hands = [index for index in range(len(grips)) if rng.random() < 0.35]
    taken: list[np.ndarray] = []
    for movable in movables:
        surface = scene.surfaces[rng.integers(len(scene.surfaces))]
        place = rng.choice(["table", "near gripper", "air"], p=[0.66, 0.28, 0.06])
        if free_hands:
            grip, rotation = grips[free_hands.pop()]
            offset = rotation @ rng.normal(0, [0.006, 0.006, 0.01])
            turn = random_rotation(rng) if rng.random() < 0.2 else small_rotation(rng, 12)
            _put(scene, movable, grip + offset, turn @ rotation @ about_z(rng.choice([0, np.pi / 2])))
            continue
        if place == "near gripper" and not grips:
            place = "table"
        if place == "air":
            height = scene.scale * rng.uniform(0.05, 0.4)
            spot = surface.centre + np.append(rng.uniform(-surface.half, surface.half), height)
            _put(scene, movable, spot, random_rotation(rng))
            continue
        for _ in range(8):
            spot = surface.centre[:2] + rng.uniform(-surface.half, surface.half)
            if place == "near gripper":
                close = grips[rng.integers(len(grips))][0][:2] + rng.normal(0, 0.05, 2)
                spot = np.clip(close, surface.centre[:2] - surface.half, surface.centre[:2] + surface.half)
            if all(np.linalg.norm(spot - other) > 0.07 * scene.scale for other in taken):
                break
        taken.append(spot)
        _rest(scene, movable, np.append(spot, surface.centre[2]), rng, tumbled=bool(rng.random() < 0.3))


def _show(scene: Scene, movable: Movable, shown: bool) -> None:
    assert movable.geom is not None
    scene.model.geom_group[movable.geom] = VISUAL_GROUP if shown else HIDDEN_GROUP


def _place_props(scene: Scene, rng: np.random.Generator) -> None:
    """Stand large shapes around the workspace, for backgrounds that are no empty room."""
    count = int(rng.choice([0, 0, 1, 2, 3, 4]))
    for index, prop in enumerate(scene.props):
        _show(scene, prop, index < count)
        assert prop.geom is not None
        scene.model.geom_type[prop.geom] = _PRIMITIVE_TYPES[rng.integers(3)]
        _set_size(scene, prop.geom, rng.uniform(0.05, 0.6, 3))
        bearing, distance = rng.uniform(-np.pi, np.pi), rng.uniform(1.4, 2.6)
        spot = scene.focus[:2] + distance * np.array([np.cos(bearing), np.sin(bearing)])
        height = 0.0 if rng.random() < 0.7 else rng.uniform(0.2, 1.5)
        _rest(scene, prop, np.append(spot, height), rng)


def _move_furniture(scene: Scene, rng: np.random.Generator, plain: bool) -> None:
    """Open and shut doors, drawers and the like; shift and turn what stands on the table without a joint."""
    model, nominal = scene.model, scene.nominal
    for joint in scene.furniture_joints:
        scene.data.qpos[model.jnt_qposadr[joint]] = rng.uniform(*model.jnt_range[joint]) * rng.choice([0, 1])
    for body in scene.furniture:
        turn = np.zeros(4)
        model.body_pos[body] = nominal.body_pos[body] + [rng.uniform(-0.2, 0.2), rng.uniform(-0.12, 0.04), 0]
        angle = rng.normal(0, 0.1 if plain else rng.choice([0.2, 1.0]))
        mujoco.mju_mulQuat(turn, quaternion_of(about_z(angle)), nominal.body_quat[body])
        model.body_quat[body] = turn


def _reshape(scene: Scene, rng: np.random.Generator) -> None:
    """Draw the sizes of primitives that make up a procedural scene's own table and arm."""
    nominal = scene.nominal
    width, depth, leg = rng.uniform(0.65, 1.7), rng.uniform(0.7, 1.5), rng.uniform(0.6, 2.0)
    thick = rng.uniform(0.6, 1.5)
    for geom in scene.reshaped_geoms:
        size = nominal.geom_size[geom].copy()
        if scene.classes[geom] == SceneClass.TABLE:
            spread = np.array([width, depth, 1.0])
            scene.model.geom_pos[geom] = nominal.geom_pos[geom] * spread
            size *= spread if nominal.geom_size[geom][0] > 0.1 else [leg, leg, 1.0]
        else:
            size[:2] *= [thick, thick if scene.model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_BOX else 1.0]
        _set_size(scene, geom, size)


def arrange(scene: Scene, rng: np.random.Generator, plain: bool) -> list[Movable]:
    """Draw a new arrangement into the scene's model and data.

    Args:
        scene: The scene, changed in place.
        rng: Source of every choice.
        plain: Keep to what the task itself shows: its own objects at their own sizes, nothing around.

    Returns:
        The objects in view of the workspace.
    """
    model, data = scene.model, scene.data
    data.qpos[:] = scene.qpos
    _reshape(scene, rng)
    for arm in scene.arms:
        surface = scene.surfaces[rng.integers(len(scene.surfaces))]
        _place_arm(scene, arm, surface, rng.choice([0.4, 0.9]), rng)
        data.qpos[arm.gripper_qpos] = arm.gripper_postures[rng.integers(len(arm.gripper_postures))]
    _move_furniture(scene, rng, plain)
    mujoco.mj_kinematics(model, data)

    few = 0 if scene.objects or scene.furniture else 2
    count = few if plain else few + int(rng.choice([0, 1, 2, 3, 5, 8]))
    chosen = set(rng.permutation(len(scene.distractors))[:count].tolist())
    for index, distractor in enumerate(scene.distractors):
        _show(scene, distractor, index in chosen)
        if index in chosen:
            _resize(scene, distractor, True, rng)
    shown = [scene.distractors[index] for index in sorted(chosen)]
    for movable in scene.objects:
        if movable.geom is not None:
            _set_size(scene, movable.geom, scene.nominal.geom_size[movable.geom])
            if not plain:
                _resize(scene, movable, False, rng)
        if plain or rng.random() < 0.85:
            shown.append(movable)
        else:
            _put(scene, movable, _FAR_AWAY, np.eye(3))
    order = rng.permutation(len(shown)) if not plain else np.arange(len(shown))
    _place_objects(scene, [shown[index] for index in order], rng)
    _place_props(scene, rng)
    if plain:
        for prop in scene.props:
            _show(scene, prop, False)
    mujoco.mj_kinematics(model, data)
    return shown
