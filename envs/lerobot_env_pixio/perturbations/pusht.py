"""The named perturbations on PushT, which is drawn and not rendered: what they change is the drawing.

The table is what is left white: everything that the task draws stays on top of it. Pixels are those of the drawing, 512 a side.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from lerobot_env_pixio.perturbations.distractors import COUNTS
from lerobot_env_pixio.perturbations.perturbations import CAMERA_TURN, LAMP_COLOUR, LIGHT_STRENGTH
from lerobot_env_pixio.rendering.textures import random_colour, random_texture

CAMERA_SHIFT = 25.0  # pixels: a twentieth of the picture
RADII = (12.0, 30.0)  # pixels, of distractors
CLEARANCE = 8.0
_WHITE = (255, 255, 255)
_TRIES = 200

Look = Callable[[np.ndarray], np.ndarray]


def _dim_light(start: np.ndarray, rng: np.random.Generator) -> Look:
    """Dim everything to a fifth to a half, each colour channel by its own factor of 0.8 to 1.2."""
    del start
    factor_3 = rng.uniform(*LIGHT_STRENGTH) * rng.uniform(*LAMP_COLOUR, size=3)
    return lambda drawing: (drawing * factor_3).astype(np.uint8)


def _move_camera(start: np.ndarray, rng: np.random.Generator) -> Look:
    """Shift the picture by 25 pixels in a random direction, and turn it by 3 degrees to either side."""
    del start
    bearing, turn = rng.uniform(-np.pi, np.pi), np.rad2deg(CAMERA_TURN) * rng.choice([-1, 1])
    shift = (round(CAMERA_SHIFT * np.cos(bearing)), round(CAMERA_SHIFT * np.sin(bearing)))
    moved = {"resample": Image.Resampling.BILINEAR, "translate": shift, "fillcolor": _WHITE}
    return lambda drawing: np.asarray(Image.fromarray(drawing).rotate(turn, **moved))


def _retexture_table(start: np.ndarray, rng: np.random.Generator) -> Look:
    """Lay another texture under everything: crops of photographs, patterns and noise."""
    return _on(random_texture(rng, len(start)))


def _recolour_table(start: np.ndarray, rng: np.random.Generator) -> Look:
    """Lay one random colour under everything."""
    return _on(np.broadcast_to((255 * random_colour(rng)).astype(np.uint8), start.shape))


def _add_distractors(start: np.ndarray, rng: np.random.Generator) -> Look:
    """Lay 4 to 8 shapes of random corners, sizes and colours on the table, clear of everything when the episode starts."""
    table = Image.fromarray(np.full_like(start, 255))
    free = _is_table(start)
    y, x = np.mgrid[: len(start), : len(start)]
    for _ in range(int(rng.integers(COUNTS[0], COUNTS[1] + 1))):
        radius, sides = rng.uniform(*RADII), int(rng.choice([3, 4, 5, 6, 40]))
        for _ in range(_TRIES):
            place = rng.uniform(radius, len(start) - radius, 2)
            around = np.hypot(x - place[0], y - place[1]) < radius + CLEARANCE
            if free[around].all():
                break
        else:
            continue
        free &= ~around
        angles = rng.uniform(0, np.pi) + np.linspace(0, 2 * np.pi, sides, endpoint=False)
        corners = place + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        colour = tuple(int(value) for value in 255 * random_colour(rng))
        ImageDraw.Draw(table).polygon([tuple(corner) for corner in corners], fill=colour)
    return _on(np.asarray(table))


def _is_table(drawing: np.ndarray) -> np.ndarray:
    return (drawing == 255).all(axis=-1)


def _on(table: np.ndarray) -> Look:
    return lambda drawing: np.where(_is_table(drawing)[..., None], table, drawing)


# Each is given the drawing (512, 512, 3) of the episode's start, and returns what to make of every drawing.
PUSHT_LOOKS: dict[str, Callable[[np.ndarray, np.random.Generator], Look]] = {
    "light": _dim_light,
    "camera": _move_camera,
    "table_texture": _retexture_table,
    "table_colour": _recolour_table,
    "distractors": _add_distractors,
}
