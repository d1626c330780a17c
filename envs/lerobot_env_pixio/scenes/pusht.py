"""Frames of a randomised PushT: a T to be pushed onto its goal by a round finger, seen from above."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from lerobot_env_pixio.rendering.textures import random_colour, random_texture

# as in gym_pusht.envs.pusht: a square of 512 units, a T of four by one bars of 30 units, a finger of radius 15
WORLD = 512.0
_T_BARS = (
    np.array([[-60.0, 0], [60, 0], [60, 30], [-60, 30]]),
    np.array([[-15.0, 30], [15, 30], [15, 120], [-15, 120]]),
)
_GOAL_POSE = (256.0, 256.0, np.pi / 4)
_BACKGROUND, _GOAL, _BLOCK, _FINGER = (255, 255, 255), (144, 238, 144), (119, 136, 153), (65, 105, 225)
_FINGER_RADIUS = 15.0
_PLAIN_SHARE = 0.15
_OVERSAMPLING = 2
_STREAM = 3  # keeps these random numbers apart from other renderers'


class _Canvas:
    """Draws in PushT's units through a camera that may be shifted, turned and zoomed."""

    def __init__(self, image: Image.Image, to_pixels: np.ndarray) -> None:
        self._draw = ImageDraw.Draw(image)
        self._to_pixels = to_pixels

    def polygon(self, corners: np.ndarray, colour: tuple[int, ...]) -> None:
        placed = corners @ self._to_pixels[:, :2].T + self._to_pixels[:, 2]
        self._draw.polygon([tuple(corner) for corner in placed], fill=colour)

    def shape(self, sides: int, place: np.ndarray, radius: float, angle: float, colour: tuple[int, ...]) -> None:
        angles = angle + np.linspace(0, 2 * np.pi, sides, endpoint=False)
        self.polygon(place + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1), colour)

    def tee(self, pose: tuple[float, float, float], colour: tuple[int, ...]) -> None:
        x, y, angle = pose
        for bar in _T_BARS:
            self.polygon(bar @ _turn(angle).T + [x, y], colour)


def _turn(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _colour(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(value) for value in 255 * random_colour(rng))


def _camera(rng: np.random.Generator, pixels: int, moved: bool) -> np.ndarray:
    """Return the map (2, 3) from PushT's units to pixels."""
    scale, angle, shift = pixels / WORLD, 0.0, np.zeros(2)
    if moved:
        scale *= rng.uniform(0.85, 1.6)
        angle = rng.choice([0.0, rng.normal(0, 0.1), rng.uniform(-np.pi, np.pi)])
        shift = rng.uniform(-0.12, 0.12, 2) * pixels
    turn = scale * _turn(angle)
    return np.column_stack([turn, pixels / 2 + shift - turn @ np.full(2, WORLD / 2)])


def _random_pose(rng: np.random.Generator) -> tuple[float, float, float]:
    return float(rng.uniform(80, 432)), float(rng.uniform(80, 432)), float(rng.uniform(-np.pi, np.pi))


def _finger_place(rng: np.random.Generator, block: tuple[float, float, float]) -> np.ndarray:
    """Half the time beside the T, where it is while it pushes."""
    if rng.random() < 0.5:
        return rng.uniform(20, 492, 2)
    bearing = rng.uniform(-np.pi, np.pi)
    return np.array(block[:2]) + rng.uniform(50, 130) * np.array([np.cos(bearing), np.sin(bearing)])


def paint_pusht(rng: np.random.Generator, image_size: int) -> np.ndarray:
    """Return a frame of PushT in a random state and a random look, uint8 (image_size, image_size, 3)."""
    plain = rng.random() < _PLAIN_SHARE
    pixels = _OVERSAMPLING * image_size
    textured = not plain and rng.random() < 0.7
    background = _BACKGROUND if plain else _colour(rng)
    image = Image.fromarray(random_texture(rng, pixels)) if textured else Image.new("RGB", (pixels, pixels), background)
    canvas = _Canvas(image, _camera(rng, pixels, moved=not plain and rng.random() < 0.7))
    own_colours = plain or rng.random() < 0.2
    goal, block, finger = (_GOAL, _BLOCK, _FINGER) if own_colours else (_colour(rng), _colour(rng), _colour(rng))
    if rng.random() < 0.9:
        canvas.tee(_GOAL_POSE if plain or rng.random() < 0.5 else _random_pose(rng), goal)
    for _ in range(0 if plain else int(rng.choice([0, 0, 1, 2, 4, 7]))):
        sides = int(rng.choice([3, 4, 5, 6, 40]))
        radius = float(rng.uniform(8, 55))
        canvas.shape(sides, rng.uniform(0, WORLD, 2), radius, float(rng.uniform(0, np.pi)), _colour(rng))
    pose = _random_pose(rng)
    if not plain and rng.random() < 0.3:  # a soft shadow's place, as from a lamp at the side
        shift = rng.uniform(-14, 14, 2)
        canvas.tee((pose[0] + shift[0], pose[1] + shift[1], pose[2]), (20, 20, 20))
    canvas.tee(pose, block)
    canvas.shape(40, _finger_place(rng, pose), _FINGER_RADIUS, 0.0, finger)
    small = np.asarray(image.resize((image_size, image_size), Image.Resampling.BOX))
    if plain:
        return small
    # an uneven light
    y, x = np.mgrid[-0.5 : 0.5 : image_size * 1j, -0.5 : 0.5 : image_size * 1j].astype(np.float32)
    slope = rng.normal(0, 0.25, 2)
    light = np.exp(rng.uniform(np.log(0.45), np.log(1.2))) * (1 + slope[0] * x + slope[1] * y)
    return np.clip(small * light[:, :, None], 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class PushTRenderer:
    """Paints square frames of PushT, their side in pixels; a frame depends on the seed and its index only."""

    image_size: int
    seed: int

    def frame(self, index: int) -> np.ndarray:
        """Return frame `index`, uint8 (image_size, image_size, 3), upright."""
        return paint_pusht(np.random.default_rng([self.seed, _STREAM, index]), self.image_size)

    def close(self) -> None:
        """Do nothing: there is no OpenGL context."""
