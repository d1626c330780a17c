"""Random looks: textures and colours of every surface, and the lights."""

from dataclasses import dataclass

import mujoco
import numpy as np

from lerobot_env_pixio.rendering.textures import paint, random_colour, random_texture
from lerobot_env_pixio.scenes.blueprint import HIDDEN_GROUP, VISUAL_GROUP
from lerobot_env_pixio.scenes.model import Scene

WHITE = np.array([1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Look:
    """What a look changed outside the model's plain arrays.

    Attributes:
        textures: Ids of the textures whose pixels changed and that the renderer has to upload.
        plain: Whether this is the task as its simulator ships it.
        shadows: Whether lights cast shadows and polished surfaces reflect, as in the simulators' own rendering.
    """

    textures: tuple[int, ...]
    plain: bool
    shadows: bool


def _repaint_materials(scene: Scene, rng: np.random.Generator) -> list[int]:
    model = scene.model
    painted = []
    for material in (*scene.flat_materials, *scene.cube_materials):
        texture = int(model.mat_texid[material][mujoco.mjtTextureRole.mjTEXROLE_RGB])
        paint(model, texture, random_texture(rng, int(model.tex_width[texture])))
        painted.append(texture)
        model.mat_texrepeat[material] = rng.choice([1, 1, 2, 3, 6]) if material in scene.flat_materials else 1
        model.mat_specular[material] = rng.uniform(0, 0.8)
        model.mat_shininess[material] = rng.uniform(0, 1)
        model.mat_reflectance[material] = 0
    return painted


def _restore_sky(scene: Scene) -> None:
    model, sky = scene.model, scene.skybox
    start = model.tex_adr[sky]
    pixels = slice(start, start + model.tex_height[sky] * model.tex_width[sky] * model.tex_nchannel[sky])
    model.tex_data[pixels] = scene.nominal.tex_data[pixels]


def _dress(scene: Scene, geoms: np.ndarray, material: int, tint: np.ndarray) -> None:
    scene.model.geom_matid[geoms] = material
    scene.model.geom_rgba[geoms, :3] = tint


def _colour_robot(scene: Scene, rng: np.random.Generator) -> None:
    model, nominal = scene.model, scene.nominal
    geoms = scene.robot_geoms
    materials = nominal.geom_matid[geoms]
    # MuJoCo draws a geom in its material's colour unless the geom's own differs from (0.5, 0.5, 0.5, 1)
    base = np.where((materials >= 0)[:, None], nominal.mat_rgba[materials, :3], nominal.geom_rgba[geoms, :3])
    scheme = rng.choice(["nominal", "tinted", "one colour", "per link"], p=[0.35, 0.35, 0.15, 0.15])
    if scheme == "nominal":
        return
    if scheme == "tinted":
        colours = base * (0.25 + rng.uniform(0.3, 1.0) * random_colour(rng))
    elif scheme == "one colour":
        colours = random_colour(rng) * rng.uniform(0.7, 1.1, (len(geoms), 1))
    else:
        palette = np.array([random_colour(rng) for _ in range(model.nbody)])
        colours = palette[model.geom_bodyid[geoms]]
    model.geom_rgba[geoms, :3] = np.clip(colours, 0.02, 1)


def _dress_objects(scene: Scene, rng: np.random.Generator) -> None:
    model = scene.model
    loose = {m.geom for m in (*scene.distractors, *scene.props) if m.geom is not None}
    for geom in scene.object_geoms:
        if rng.random() < 0.6:
            material = rng.choice([-1, *scene.cube_materials])
            _dress(scene, np.array([geom]), material, random_colour(rng) if material < 0 else WHITE)
    for geom in sorted(loose):
        texture = rng.random() < 0.5
        material = rng.choice(scene.cube_materials) if texture else -1
        tint = (0.5 + 0.5 * random_colour(rng)) if texture else random_colour(rng)
        _dress(scene, np.array([geom]), material, tint)
        model.geom_rgba[geom, 3] = 1


def dress(scene: Scene, rng: np.random.Generator, plain: bool) -> Look:
    """Draw textures and colours of table, floor, walls, sky, objects and robot into the scene's model.

    Args:
        scene: The scene, changed in place.
        rng: Source of every choice.
        plain: Keep every surface as the simulator ships it.
    """
    model, nominal = scene.model, scene.nominal
    model.geom_matid[:] = nominal.geom_matid
    model.geom_rgba[:] = nominal.geom_rgba
    for geoms in (scene.wall_geoms, scene.floor_geoms):
        model.geom_group[geoms] = nominal.geom_group[geoms]
    shadows = bool(rng.random() < 0.06)
    _restore_sky(scene)  # it shows above walls, too
    if plain:
        return Look((scene.skybox,), True, shadows)
    painted = [scene.skybox, *_repaint_materials(scene, rng)]
    for geoms in (scene.table_geoms, scene.floor_geoms, scene.wall_geoms):
        if rng.random() < 0.75 or not scene.is_a_task:
            textured = rng.random() < 0.75
            material = rng.choice(scene.flat_materials) if textured else -1
            _dress(scene, geoms, material, WHITE if textured else random_colour(rng))
    model.geom_group[scene.floor_geoms] = VISUAL_GROUP
    has_walls = rng.random() < 0.6
    model.geom_group[scene.wall_geoms] = VISUAL_GROUP if has_walls else HIDDEN_GROUP
    if not has_walls:
        paint(model, scene.skybox, random_texture(rng, int(model.tex_width[scene.skybox])))
    _colour_robot(scene, rng)
    _dress_objects(scene, rng)
    return Look(tuple(painted), False, shadows)


def _scale_task_lights(scene: Scene, factor: float) -> None:
    lights, head, nominal_head = scene.task_lights, scene.model.vis.headlight, scene.nominal.vis.headlight
    for kind in ("diffuse", "ambient", "specular"):
        getattr(scene.model, f"light_{kind}")[lights] = factor * getattr(scene.nominal, f"light_{kind}")[lights]
        getattr(head, kind)[:] = factor * getattr(nominal_head, kind)


def _light_colour(rng: np.random.Generator) -> np.ndarray:
    tint = random_colour(rng)
    return 1 - rng.choice([0.0, 0.15, 0.5], p=[0.4, 0.4, 0.2]) * (1 - tint / tint.max())


def illuminate(scene: Scene, rng: np.random.Generator, plain: bool) -> None:
    """Draw number, kind, place, colour and strength of the lights into the scene's model.

    Total strength spans a tenth to one and a half times the simulator's own light.

    Args:
        scene: The scene, changed in place.
        rng: Source of every choice.
        plain: Keep the simulator's own lights, at their own strength.
    """
    model = scene.model
    model.light_active[scene.lights] = False
    model.light_active[scene.task_lights] = True
    model.light_castshadow[scene.lights] = False
    dim = rng.random() < 0.35
    strength = float(np.exp(rng.uniform(*np.log([0.12, 0.5] if dim else [0.5, 1.6]))))
    own_lights = rng.random() < 0.35
    if plain or own_lights:
        _scale_task_lights(scene, 1.0 if plain else min(strength, 1.2))
        return
    _scale_task_lights(scene, 0.0 if rng.random() < 0.6 else 0.6 * strength)
    count = int(rng.integers(1, len(scene.lights) + 1))
    lit = rng.permutation(scene.lights)[:count]
    shares = rng.dirichlet(np.full(count + 1, 1.0))
    model.light_active[lit] = True
    for light, share in zip(lit, shares, strict=False):
        bearing, elevation = rng.uniform(-np.pi, np.pi), rng.uniform(0.25, 1.5)
        away = np.array([np.cos(bearing) * np.cos(elevation), np.sin(bearing) * np.cos(elevation), np.sin(elevation)])
        distance = max(1.0, 0.5 * scene.scale) * rng.uniform(0.7, 2.5)
        model.light_pos[light] = scene.focus + distance * away
        model.light_dir[light] = -away + rng.normal(0, 0.15, 3)
        model.light_dir[light] /= np.linalg.norm(model.light_dir[light])
        model.light_cutoff[light] = rng.uniform(20, 80)
        model.light_exponent[light] = rng.uniform(0, 12)
        model.light_diffuse[light] = 2.2 * strength * share * _light_colour(rng)
        model.light_ambient[light] = rng.uniform(0, 0.4) * strength * share
        model.light_specular[light] = rng.uniform(0, 1) * strength * share
    if rng.random() < 0.5:
        model.light_castshadow[lit[0]] = True
    head = strength * shares[-1]
    model.vis.headlight.ambient[:] = (rng.uniform(0.1, 0.5) * strength) * _light_colour(rng)
    model.vis.headlight.diffuse[:] = head * _light_colour(rng)
    model.vis.headlight.specular[:] = rng.uniform(0, 0.6) * head
