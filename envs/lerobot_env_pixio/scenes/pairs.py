"""Pairs of views of one arrangement, lit and dressed alike, that see enough of the same things.

Cameras are OpenCV's: x right, y down, z forward; metres. Pixel (u, v) has its centre at (u + ½, v + ½).
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from lerobot_env_pixio.scenes.arrangement import small_rotation
from lerobot_env_pixio.scenes.cameras import View, shows_the_scene
from lerobot_env_pixio.scenes.renderer import FRAMES_PER_ARRANGEMENT, SceneRenderer, is_worth_seeing
from lerobot_env_pixio.scenes.sample import SceneSample

LEAST_COVISIBILITY = 0.25
_PAIR_STREAM = 5  # keeps these random numbers apart from those of single frames
_TURN = (4.0, 45.0)  # degrees, the second camera's way around what the first one looks at, drawn log-uniformly
_TURNING = 4.0  # degrees, deviation of its own turn
_SHRINK = 0.8  # of the way, whenever the second view has too little in common with the first
_SAME_DEPTH = 0.02  # relative; farther apart, one point hides the other
_NEAREST_PART = 0.25  # of the image's middle: cameras turn about what stands there


@dataclass(frozen=True)
class ScenePair:
    """Two views of one arrangement.

    Attributes:
        views: Their frames with labels; `pose` is in a world that both share.
        covisibility: float32 (2, 2), share of view i's pixels with a depth that view j sees, too.
    """

    views: tuple[SceneSample, SceneSample]
    covisibility: np.ndarray


def seen_share(view: SceneSample, other: SceneSample) -> float:
    """Return which share of a view's pixels with a finite depth another view sees: within its image, and not hidden."""
    side = len(view.depth)
    known = np.isfinite(view.depth)
    v, u = np.nonzero(known)
    depth = view.depth[known].astype(np.float64)
    local = np.stack([u + 0.5 - side / 2, v + 0.5 - side / 2, np.full(len(u), view.focal_length)], axis=1)
    world = (local * (depth / view.focal_length)[:, None]) @ view.pose[:3, :3].T + view.pose[:3, 3]
    x, y, z = ((world - other.pose[:3, 3]) @ other.pose[:3, :3]).T
    ahead = z > 1e-3
    at = np.stack([y[ahead], x[ahead]]) * (other.focal_length / z[ahead]) + side / 2
    inside = ((at >= 0) & (at < side)).all(axis=0)
    row, column = at[:, inside].astype(int)
    hit, expected = other.depth[row, column], z[ahead][inside]
    return float((np.abs(hit - expected) < _SAME_DEPTH * expected).sum() / max(len(u), 1))


def _seen_from_elsewhere(view: SceneSample, fovy: float, amount: float, rng: np.random.Generator) -> View:
    """Draw a camera that went around the middle of what a view sees, came nearer or went away, and turned a little.

    Args:
        view: The first view.
        fovy: Its vertical field of view in degrees.
        amount: 1 for the whole way that is drawn, less for a part of it.
        rng: Source of every choice.
    """
    side = len(view.depth)
    middle = slice(int(side * (0.5 - _NEAREST_PART / 2)), int(side * (0.5 + _NEAREST_PART / 2)))
    depths = view.depth[middle, middle]
    depths = depths[np.isfinite(depths)]
    distance = float(np.median(depths)) if len(depths) else 1.0
    rotation, position = view.pose[:3, :3], view.pose[:3, 3]
    target = position + distance * rotation[:, 2]
    bearing = rng.uniform(-np.pi, np.pi) if rng.random() < 0.3 else rng.choice([0.0, np.pi]) + rng.normal(0, 0.15)
    axis = rotation @ [np.sin(bearing), np.cos(bearing), 0.0]  # mostly to the left or right
    angle = amount * np.radians(np.exp(rng.uniform(*np.log(_TURN))))
    turn = Rotation.from_rotvec(angle * axis).as_matrix()
    nearer = np.exp(amount * rng.normal(0, 0.15))
    turned = small_rotation(rng, amount * _TURNING) @ turn @ rotation
    return View(
        target + nearer * (turn @ (position - target)),
        turned @ np.diag([1.0, -1.0, -1.0]),  # MuJoCo's cameras have y up and look along -z
        fovy,
    )


class PairRenderer(SceneRenderer):
    """Renders pairs of views of one MuJoCo scene family; a pair depends on the family, the seed and its index only."""

    def pair(self, index: int) -> ScenePair:
        """Return pair `index`: an arrangement that no other pair shows, in the same light from two cameras.

        Both views see at least `LEAST_COVISIBILITY` of each other.
        """
        first = self.sample(index * FRAMES_PER_ARRANGEMENT)
        fovy = float(self._scene.model.cam_fovy[self._scene.camera])
        rng = np.random.default_rng([*self._seed, _PAIR_STREAM, index])
        amount = 1.0
        while True:
            view = _seen_from_elsewhere(first, fovy, amount, rng)
            amount *= _SHRINK
            if not shows_the_scene(self._scene, view, self._objects, rng):
                continue
            self._look_through(view)
            frame = self._draw()
            if not is_worth_seeing(frame):
                continue
            second = self._labelled(frame)
            shares = np.array([[1, seen_share(first, second)], [seen_share(second, first), 1]], np.float32)
            if shares.min() >= LEAST_COVISIBILITY:
                return ScenePair((first, second), shares)
