"""Pairs of views to train and test on: rendered ones, or those of a user's folder.

Shape letters: N pairs, V views, H and W pixels, h and w grid of points.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from pixio_robot.common.errors import UserError
from pixio_robot.common.progress import progress_bar
from pixio_robot.common.storage.kept import kept_folder
from pixio_robot.downstream.scenes import Simulator
from pixio_robot.downstream.two_view.config import TwoViewProtocol
from pixio_robot.downstream.two_view.geometry import Geometry, pinhole_rays, quaternion, relative_poses
from pixio_robot.downstream.two_view.wai import Frame, Scene, read_scenes, write_scene

TRAIN, TEST = "train", "test"


class Pairs(NamedTuple):
    """Pairs of views with their truth."""

    names: list[str]
    """`scene: first frame, second frame`."""
    images_NVHWC: Tensor
    """uint8."""
    rays_NVhw3: Tensor
    """Unit rays through the points of the grid, in the camera's frame."""
    depth_NVhw: Tensor
    """float32, metres along the camera's axis; 0 where it is not known."""
    pose_NV44: Tensor
    """float32, camera to a frame that both views share."""

    def truth(self, rows: Tensor, swapped: bool = False) -> Geometry:
        """Return what is to be told of some pairs, in the frame of view 0, or of view 1 where they are swapped."""
        order = [1, 0] if swapped else [0, 1]
        rays, depth = self.rays_NVhw3[rows][:, order], self.depth_NVhw[rows][:, order]
        pose = relative_poses(self.pose_NV44[rows][:, order])
        return Geometry(rays, depth / rays[..., 2], quaternion(pose[..., :3, :3]), pose[..., :3, 3], depth > 0)


def rendered_set(
    protocol: TwoViewProtocol, simulator: Simulator, folder: Path, console: Console
) -> tuple[list[Scene], list[Scene]]:
    """Return scenes of one pair each to train and to test on, rendered where they are not there yet.

    Args:
        protocol: Which.
        simulator: Who renders them.
        folder: Where rendered sets are kept, each under the digest of its description.
        console: Where progress is shown.

    Raises:
        UserError: A family is unknown, there are fewer pairs than families, or the machine has no usable OpenGL.
    """
    wanted = {
        "families": list(protocol.families),
        "seed": protocol.scene_seed,
        "pairs": [protocol.train_pairs, protocol.test_pairs],
        "image_size": protocol.image_size,
    }
    place = folder / f"pairs-{hashlib.blake2b(json.dumps(wanted).encode(), digest_size=6).hexdigest()}"
    try:
        kept_folder(place, lambda unfinished: _render(protocol, simulator, unfinished, console))
    except ValueError as error:
        raise UserError(str(error)) from error
    return read_scenes(place / TRAIN), read_scenes(place / TEST)


def _render(protocol: TwoViewProtocol, simulator: Simulator, place: Path, console: Console) -> None:
    assert simulator.pairs is not None
    families = protocol.families
    shares = [number // len(families) for number in (protocol.train_pairs, protocol.test_pairs)]
    if not min(shares):
        raise UserError(
            f"two_view.train_pairs and test_pairs ({protocol.train_pairs} and {protocol.test_pairs}) must be at least the "
            f"{len(families)} scene families."
        )
    with progress_bar("rendering pairs", sum(shares) * len(families), console) as advance:
        for family in families:
            for part, seed, share in zip((TRAIN, TEST), (protocol.scene_seed, protocol.scene_seed + 1), shares):
                renderer = simulator.pairs(family, protocol.image_size, seed)
                try:
                    for index in range(share):
                        pair = renderer.pair(index)
                        write_scene(place / part / f"{family}-{index:05d}", pair.views, pair.covisibility)
                        advance()
                finally:
                    renderer.close()


def users_set(root: Path, test_share: float, seed: int = 0) -> tuple[list[Scene], list[Scene]]:
    """Return a user's scenes to train and to test on: `train/` and `test/`, or a share of all scenes.

    Raises:
        UserError: See `read_scenes`; or there are too few scenes.
    """
    if (root / TRAIN).is_dir() and (root / TEST).is_dir():
        return read_scenes(root / TRAIN), read_scenes(root / TEST)
    found = read_scenes(root)
    order = np.random.default_rng(seed).permutation(len(found))
    tested = round(test_share * len(found))
    if not 0 < tested < len(found):
        raise UserError(
            f"{root} holds {len(found)} scenes, of which two_view.test_share={test_share} leaves {tested} to test on and "
            f"{len(found) - tested} to train on: both need at least one."
        )
    return [found[row] for row in sorted(order[tested:])], [found[row] for row in sorted(order[:tested])]


def chosen_pairs(scenes: Sequence[Scene], least: float, most: int, seed: int = 0) -> list[tuple[Scene, int, int]]:
    """Return pairs of frames that see enough of each other, at most so many of a scene, drawn at random.

    Raises:
        UserError: There is none.
    """
    chosen = []
    for number, scene in enumerate(scenes):
        pairs = scene.pairs(least)
        rows = np.random.default_rng([seed, number]).permutation(len(pairs))[:most]
        chosen += [(scene, *pairs[row]) for row in sorted(rows)]
    if not chosen:
        raise UserError(
            f"None of {len(scenes)} scenes has two frames that see {least:.0%} of each other: lower two_view.covisibility."
        )
    return chosen


def read_pairs(chosen: Iterable[tuple[Scene, int, int]], image_size: int, points: int) -> Pairs:
    """Read pairs of frames: the middle square of each, resized, and the truth at a grid of points.

    Depth is not resized: a point is the pixel in whose square the middle of its cell lies, with the ray through that pixel's
    centre.

    Raises:
        UserError: A file cannot be read.
    """
    names, views = [], []
    for scene, *rows in chosen:
        names.append(f"{scene.name}: {', '.join(scene.frames[row].image.stem for row in rows)}")
        views.append([_view(scene.frames[row], image_size, points) for row in rows])
    parts = (torch.stack([torch.stack([view[part] for view in pair]) for pair in views]) for part in range(4))
    return Pairs(names, *parts)


def _view(frame: Frame, image_size: int, points: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    image, depth = frame.read()
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    if side != image_size:
        square = square.resize((image_size, image_size), Image.Resampling.BICUBIC)
    steps = ((np.arange(points) + 0.5) * side / points).astype(int)
    v, u = np.meshgrid(top + steps, left + steps, indexing="ij")
    at_points = depth[v, u]
    known = np.isfinite(at_points) & (at_points > 0)
    intrinsics = torch.from_numpy(frame.intrinsics)
    rays = pinhole_rays(torch.from_numpy(u.astype(np.float64)), torch.from_numpy(v.astype(np.float64)), intrinsics)
    return (
        torch.from_numpy(np.array(square)),
        rays.float(),
        torch.from_numpy(np.where(known, at_points, 0).astype(np.float32)),
        torch.from_numpy(frame.pose).float(),
    )
