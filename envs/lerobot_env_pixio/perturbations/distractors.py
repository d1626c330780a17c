"""Objects that lie on a table and exist for cameras alone: a compiled model and its physics know nothing of them.

Shape suffixes: G geoms, X the three axes of space. Lengths in metres, world frame.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lerobot_env_pixio.rendering.frames import AddedGeom
from lerobot_env_pixio.rendering.textures import random_colour

if TYPE_CHECKING:
    import mujoco

# Of an object: half its width, and half its height.
WIDTHS = (0.015, 0.04)
HEIGHTS = (0.015, 0.07)
COUNTS = (4, 8)
# Between an object and whatever is there when the episode starts, such as the task's objects and the hand above the table.
CLEARANCE = 0.05
# What starts higher above the table than this is not stood upon: the tallest object is lower.
HEADROOM = 0.25
_TRIES = 200


@dataclass(frozen=True)
class Surface:
    """A horizontal rectangle that objects stand on, its sides along the world's axes.

    Attributes:
        centre: Its middle (3,), metres.
        half: Half the lengths of its sides (2,), metres.
    """

    centre: np.ndarray
    half: np.ndarray


@dataclass(frozen=True)
class Circle:
    """A round place on a table: centre (2,) and radius, metres."""

    centre: np.ndarray
    radius: float


@dataclass
class _Object:
    """Shapes that stand together, around the origin of a table's surface."""

    radius: float
    parts: list[tuple[str, tuple[float, float, float], float]] = field(default_factory=list)
    """Shape, size and height of the centre of each."""


def _box(rng: np.random.Generator) -> _Object:
    width, depth = rng.uniform(*WIDTHS, size=2)
    height = rng.uniform(*HEIGHTS)
    return _Object(float(np.hypot(width, depth)), [("box", (width, depth, height), height)])


def _ball(rng: np.random.Generator) -> _Object:
    radius = rng.uniform(*WIDTHS)
    return _Object(radius, [("sphere", (radius, radius, radius), radius)])


def _can(rng: np.random.Generator) -> _Object:
    radius, height = rng.uniform(*WIDTHS), rng.uniform(*HEIGHTS)
    return _Object(radius, [("cylinder", (radius, height, 0.0), height)])


def _egg(rng: np.random.Generator) -> _Object:
    width, depth, height = rng.uniform(*WIDTHS, size=3)
    return _Object(max(width, depth), [("ellipsoid", (width, depth, height), height)])


def _bottle(rng: np.random.Generator) -> _Object:
    radius, height = rng.uniform(*WIDTHS), rng.uniform(HEIGHTS[1] / 2, HEIGHTS[1])
    neck_radius, neck_height = rng.uniform(0.3, 0.6) * radius, rng.uniform(0.2, 0.4) * height
    body = ("cylinder", (radius, height, 0.0), height)
    return _Object(radius, [body, ("cylinder", (neck_radius, neck_height, 0.0), 2 * height + neck_height)])


_KINDS: tuple[Callable[[np.random.Generator], _Object], ...] = (_box, _ball, _can, _egg, _bottle)


def scatter(surface: Surface, taken: Sequence[Circle], rng: np.random.Generator) -> list[AddedGeom]:
    """Return the shapes of 4 to 8 random objects that stand on a table, clear of one another and of what is there.

    On a table with little room left there are fewer.

    Args:
        surface: Where they stand.
        taken: What they keep clear of.
        rng: Decides kinds, sizes, colours and places.
    """
    top = float(surface.centre[2])
    circles, geoms = list(taken), []
    for _ in range(int(rng.integers(COUNTS[0], COUNTS[1] + 1))):
        thing = _KINDS[int(rng.integers(len(_KINDS)))](rng)
        for _ in range(_TRIES):
            place = surface.centre[:2] + rng.uniform(-1, 1, 2) * (surface.half - thing.radius)
            gaps = (np.linalg.norm(place - other.centre) - other.radius - thing.radius for other in circles)
            if all(gap > CLEARANCE for gap in gaps):
                break
        else:
            continue
        circles.append(Circle(place, thing.radius))
        yaw, shininess = float(rng.uniform(0, np.pi)), float(rng.uniform(0, 0.8))
        for shape, size, height in thing.parts:
            position = np.array([*place, top + height])
            geoms.append(AddedGeom(shape, np.array(size), position, yaw, random_colour(rng), shininess))
    return geoms


def taken_places(
    model: "mujoco.MjModel", data: "mujoco.MjData", top: float, table_bodies: Sequence[int]
) -> list[Circle]:
    """Return what is on a table and closely above it, seen from above.

    Args:
        model: The compiled task.
        data: Its state.
        top: Height of the table's surface.
        table_bodies: Ids of the bodies that make up the table, which is not in its own way.
    """
    heights_G, radii_G = data.geom_xpos[:, 2], model.geom_rbound
    is_room_G = np.isin(model.geom_bodyid, [0, *table_bodies])
    is_near_G = (heights_G + radii_G > top) & (heights_G - radii_G < top + HEADROOM)
    places = np.flatnonzero(~is_room_G & is_near_G & (radii_G > 0))
    return [Circle(data.geom_xpos[geom, :2].copy(), float(radii_G[geom])) for geom in places]
