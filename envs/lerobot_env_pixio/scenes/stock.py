"""What every scene gets in addition: distractors, background props, surroundings, lights, materials, a camera."""

import mujoco
import numpy as np

from lerobot_env_pixio.rendering.textures import add_material, package_folder
from lerobot_env_pixio.scenes.blueprint import HIDDEN_GROUP, VISUAL_GROUP, Blueprint

ASSETS = package_folder("robosuite") / "models" / "assets"
FLAT_TEXTURES = 3
CUBE_TEXTURES = 3
TEXTURE_SIZE = 256
CUBE_TEXTURE_SIZE = 128
LIGHTS = 4
PRIMITIVES = 10
PROPS = 4
ROOM = 3.0  # metres from the workspace to each wall
_MESH_SCALES = {"can": 1.0, "bread": 0.8, "lemon": 1.0, "milk": 0.8, "cereal": 0.8, "bottle": 1.0}


def _add_materials(spec: mujoco.MjSpec) -> None:
    for index in range(FLAT_TEXTURES):
        add_material(spec, f"pixio_flat{index}", TEXTURE_SIZE, texuniform=True, reflectance=0.0)
    for index in range(FLAT_TEXTURES, FLAT_TEXTURES + CUBE_TEXTURES):
        add_material(spec, f"pixio_cube{index}", CUBE_TEXTURE_SIZE, cube=True, texuniform=False, reflectance=0.0)
    # built-in skies are a few pixels wide, and MuJoCo draws only one
    for texture in list(spec.textures):
        if texture.type == mujoco.mjtTexture.mjTEXTURE_SKYBOX and texture.builtin:
            spec.delete(texture)
    if not any(texture.type == mujoco.mjtTexture.mjTEXTURE_SKYBOX for texture in spec.textures):
        spec.add_texture(
            name="pixio_sky",
            type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
            builtin=mujoco.mjtBuiltin.mjBUILTIN_FLAT,
            rgb1=[0.5, 0.495, 0.48],  # Meta-World's own
            rgb2=[0.5, 0.495, 0.48],
            width=128,
            height=128,
        )


def _add_room(blueprint: Blueprint, focus: np.ndarray) -> None:
    """Add the floor and the walls that the scene lacks; they stay hidden in the scene's plain look."""
    world = blueprint.spec.worldbody
    look = {"group": HIDDEN_GROUP, "contype": 0, "conaffinity": 0, "type": mujoco.mjtGeom.mjGEOM_PLANE}
    if blueprint.floor_height is not None:
        world.add_geom(name="pixio_floor", size=[6, 6, 0.1], pos=[0, 0, blueprint.floor_height], **look)
    if blueprint.has_walls:
        return
    for index, (x, y) in enumerate(((1, 0), (-1, 0), (0, 1), (0, -1))):
        world.add_geom(
            name=f"pixio_wall{index}",
            size=[2 * ROOM, 2 * ROOM, 0.1],
            pos=[focus[0] + ROOM * x, focus[1] + ROOM * y, 0],
            zaxis=[-x, -y, 0],
            **look,
        )


def add_stock(blueprint: Blueprint, focus: np.ndarray) -> None:
    """Add the stock to the blueprint's spec; every name starts with `pixio_`.

    Args:
        blueprint: The scene, its spec changed in place.
        focus: Middle of the workspace (3,), metres.
    """
    spec = blueprint.spec
    _add_materials(spec)
    _add_room(blueprint, focus)
    for index in range(LIGHTS):
        kind = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL if index < 2 else mujoco.mjtLightType.mjLIGHT_SPOT
        spec.worldbody.add_light(name=f"pixio_light{index}", type=kind, active=False, castshadow=False)
    spec.worldbody.add_camera(name="pixio_camera")
    look = {"group": VISUAL_GROUP, "contype": 0, "conaffinity": 0}
    for name, scale in _MESH_SCALES.items():
        spec.add_mesh(name=f"pixio_{name}", file=str(ASSETS / "objects" / "meshes" / f"{name}.stl"))
        spec.mesh(f"pixio_{name}").scale = [scale * blueprint.scale] * 3
    shapes = [("distractor", {"type": mujoco.mjtGeom.mjGEOM_BOX, "size": [0.02] * 3})] * PRIMITIVES
    shapes += [("distractor", {"type": mujoco.mjtGeom.mjGEOM_MESH, "meshname": f"pixio_{n}"}) for n in _MESH_SCALES]
    shapes += [("prop", {"type": mujoco.mjtGeom.mjGEOM_BOX, "size": [0.2] * 3})] * PROPS
    for index, (kind, shape) in enumerate(shapes):
        body = spec.worldbody.add_body(name=f"pixio_{kind}{index}", mocap=True)
        body.add_geom(**look, **shape)
