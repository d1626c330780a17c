"""Named changes of how a task looks, made at evaluation only: physics, placement and reward stay the same.

A perturbation is drawn anew for every episode from a seed of its own, so that an episode under a perturbation
starts exactly as the unperturbed one of the same seed, and differs from it in appearance alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lerobot_env_pixio.perturbations.distractors import Circle, Surface, scatter, taken_places
from lerobot_env_pixio.rendering.frames import AddedGeom
from lerobot_env_pixio.rendering.textures import paint, random_colour, random_texture

if TYPE_CHECKING:
    import mujoco

CAMERA_SHIFT = 0.07  # metres
CAMERA_TURN = np.deg2rad(3.0)
LIGHT_STRENGTH = (0.2, 0.5)
LAMP_COLOUR = (0.8, 1.2)

_APPEARANCE = (
    "cam_mode", "cam_pos", "cam_quat", "light_ambient", "light_diffuse", "light_specular",
    "geom_group", "geom_rgba", "geom_matid", "mat_rgba", "tex_data",
)  # fmt: skip


@dataclass(frozen=True)
class Surroundings:
    """What a perturbation may change, and what it has to know.

    Attributes:
        task: Name of the task, for messages.
        model: The compiled task.
        data: Its state at the start of the episode; only read.
        scene_cameras: Ids of the cameras that stand in the room; those on the robot stay where they are mounted.
        table_geoms: Ids of the table's visible geoms.
        table_surface: Where objects may stand on it; None without a table.
        table_bodies: Ids of the bodies that make up the table.
        kept_clear: Where no distractor shall stand, beside what is on the table.
        tablecloth: Id of a hidden geom that covers a table which itself can show no texture.
    """

    task: str
    model: "mujoco.MjModel"
    data: "mujoco.MjData"
    scene_cameras: tuple[int, ...]
    table_geoms: tuple[int, ...] = ()
    table_surface: Surface | None = None
    table_bodies: tuple[int, ...] = ()
    kept_clear: tuple[Circle, ...] = ()
    tablecloth: int | None = None

    def require_table(self, perturbation: str) -> Surface:
        """Return the table's surface, or refuse a task without a table.

        Raises:
            ValueError: There is no table.
        """
        if self.table_surface is None:
            raise ValueError(
                f"perturbation {perturbation!r} changes the table, and the task {self.task!r} has none: choose another "
                "perturbation, such as light or camera"
            )
        return self.table_surface


class Appearance:
    """The looks of a model as it was compiled, to go back to before each episode."""

    def __init__(self, model: "mujoco.MjModel") -> None:
        self._model = model
        self._nominal = {name: getattr(model, name).copy() for name in _APPEARANCE}
        self._headlight = _headlight(model)

    def restore(self) -> None:
        """Undo every perturbation."""
        for name, values in self._nominal.items():
            getattr(self._model, name)[:] = values
        for field, values in self._headlight.items():
            getattr(self._model.vis.headlight, field)[:] = values


def _headlight(model: "mujoco.MjModel") -> dict[str, np.ndarray]:
    return {field: getattr(model.vis.headlight, field).copy() for field in ("ambient", "diffuse", "specular")}


def dim_lights(around: Surroundings, rng: np.random.Generator) -> list[AddedGeom]:
    """Dim all lights to a fifth to a half, each colour channel by its own factor of 0.8 to 1.2."""
    factor_3 = rng.uniform(*LIGHT_STRENGTH) * rng.uniform(*LAMP_COLOUR, size=3)
    model = around.model
    for name in ("light_ambient", "light_diffuse", "light_specular"):
        getattr(model, name)[:] *= factor_3
    for field, values in _headlight(model).items():
        getattr(model.vis.headlight, field)[:] = values * factor_3
    return []


def move_cameras(around: Surroundings, rng: np.random.Generator) -> list[AddedGeom]:
    """Move every camera that stands in the room by 7 cm and turn it by 3 degrees, both in random directions.

    A camera that follows something that moves goes on following it, and is moved only.
    """
    import mujoco

    model = around.model
    for camera in around.scene_cameras:
        model.cam_pos[camera] += CAMERA_SHIFT * _unit_vector(rng)
        if model.cam_mode[camera] != mujoco.mjtCamLight.mjCAMLIGHT_FIXED:
            if model.body_weldid[model.cam_targetbodyid[camera]] != 0:
                continue
            model.cam_mode[camera] = mujoco.mjtCamLight.mjCAMLIGHT_FIXED
            mujoco.mju_mat2Quat(model.cam_quat[camera], around.data.cam_xmat[camera])
        turn_4, turned_4 = np.zeros(4), np.zeros(4)
        mujoco.mju_axisAngle2Quat(turn_4, _unit_vector(rng), CAMERA_TURN)
        mujoco.mju_mulQuat(turned_4, model.cam_quat[camera], turn_4)
        model.cam_quat[camera] = turned_4
    return []


def retexture_table(around: Surroundings, rng: np.random.Generator) -> list[AddedGeom]:
    """Paint the table with another texture: crops of photographs, patterns and noise."""
    around.require_table("table_texture")
    if around.tablecloth is not None:
        around.model.geom_group[around.tablecloth] = around.model.geom_group[around.table_geoms[0]]
    for texture in table_textures(around):
        width = int(around.model.tex_width[texture])
        paint(around.model, texture, random_texture(rng, width))
    return []


def recolour_table(around: Surroundings, rng: np.random.Generator) -> list[AddedGeom]:
    """Paint the table in one random colour, without texture."""
    around.require_table("table_colour")
    colour_3 = random_colour(rng)
    geoms = list(around.table_geoms)
    around.model.geom_matid[geoms] = -1
    around.model.geom_rgba[geoms, :3] = colour_3
    return []


def add_distractors(around: Surroundings, rng: np.random.Generator) -> list[AddedGeom]:
    """Put 4 to 8 objects of random kinds, sizes and colours on the table, clear of the task's objects and of the arm.

    They are seen and never touched: the arm goes through those that it reaches later.
    """
    surface = around.require_table("distractors")
    taken = taken_places(around.model, around.data, float(surface.centre[2]), around.table_bodies)
    return scatter(surface, [*taken, *around.kept_clear], rng)


def table_textures(around: Surroundings) -> list[int]:
    """Ids of the textures that the table's materials show."""
    model = around.model
    geoms = around.table_geoms if around.tablecloth is None else (around.tablecloth,)
    materials = {int(model.geom_matid[geom]) for geom in geoms} - {-1}
    textures = {int(texture) for material in materials for texture in model.mat_texid[material]} - {-1}
    return sorted(textures)


def _unit_vector(rng: np.random.Generator) -> np.ndarray:
    vector_3 = rng.normal(size=3)
    return vector_3 / np.linalg.norm(vector_3)


# Each changes the model's looks, and returns what to draw on top of it.
PERTURBATIONS: dict[str, Callable[[Surroundings, np.random.Generator], list[AddedGeom]]] = {
    "light": dim_lights,
    "camera": move_cameras,
    "table_texture": retexture_table,
    "table_colour": recolour_table,
    "distractors": add_distractors,
}
