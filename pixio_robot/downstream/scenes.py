"""Simulated scenes with exact truth, rendered once and kept; the simulator's side is given by the caller.

    <folder>/<digest>/frames.npy depth.npy segmentation.npy …      memory-mapped, so that any number of them may be large

Shape letters: N frames, H and W pixels.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.common.progress import progress_bar
from pixio_robot.common.storage.files import write_json
from pixio_robot.common.storage.kept import kept_folder, new_array


class LabelledFrame(Protocol):
    """A frame as a simulator labels it; `lerobot_env_pixio.scenes.SceneSample` is one.

    Poses (A, 4, 4) and positions (O, 3) are in the camera frame (x right, y down, z forward), in metres; the first of each
    is kept.
    """

    frame: np.ndarray
    depth: np.ndarray
    segmentation: np.ndarray
    gripper_poses: np.ndarray
    object_positions: np.ndarray
    focal_length: float


class LabelledRenderer(Protocol):
    """Renders the labelled frames of one family, each a function of seed and index; `SceneRenderer` is one."""

    def sample(self, index: int) -> LabelledFrame:
        """Return frame `index`."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


class PosedFrame(Protocol):
    """A square frame with its depth and camera; the principal point is the middle of the image."""

    frame: np.ndarray
    """uint8 (H, W, 3)."""
    depth: np.ndarray
    """float32 (H, W), metres along the camera's axis; infinite where there is nothing."""
    focal_length: float
    """In pixels."""
    pose: np.ndarray
    """float64 (4, 4), from the camera frame (x right, y down, z forward) to a world that a pair's frames share; metres."""


class FramePair(Protocol):
    """Two views of the same arrangement in the same light; `lerobot_env_pixio.scenes.ScenePair` is one."""

    views: tuple[PosedFrame, PosedFrame]
    covisibility: np.ndarray
    """float32 (2, 2), share of view i's pixels with a depth that view j sees, too."""


class PairsRenderer(Protocol):
    """Renders pairs of one family, each a function of seed and index; `lerobot_env_pixio.scenes.PairRenderer` is one."""

    def pair(self, index: int) -> FramePair:
        """Return pair `index`."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


@dataclass(frozen=True)
class Simulator:
    """What a simulator offers to downstream tasks.

    Attributes:
        families: Names of its scene families.
        class_names: Names of the values of a segmentation.
        frames_per_look: Consecutive frames that share textures and colours.
        renderer: Makes a renderer from family, image size in pixels and seed.
        pairs: Makes a renderer of pairs of views from the same; None where the simulator has none.
    """

    families: Sequence[str]
    class_names: Sequence[str]
    frames_per_look: int
    renderer: Callable[[str, int, int], LabelledRenderer]
    pairs: Callable[[str, int, int], PairsRenderer] | None = None


@dataclass(frozen=True)
class SceneSet:
    """Which scenes: a function of these values alone.

    Attributes:
        families: Scene families; each gives the same number of frames.
        frames: Of all families together.
        image_size: Side in pixels.
        seed: Of the scenes; encoders are pretrained on seed 0.
    """

    families: tuple[str, ...]
    frames: int
    image_size: int
    seed: int


class Scenes(NamedTuple):
    """Labelled frames, memory-mapped; NaN where a pose or position is not there or out of view."""

    frames_NHWC: np.ndarray
    """uint8."""
    depth_NHW: np.ndarray
    """float32, metres along the camera's axis; infinite where there is nothing."""
    segmentation_NHW: np.ndarray
    """uint8, indices into the simulator's class names."""
    gripper_pose_N44: np.ndarray
    """float32, in the camera frame, metres."""
    object_position_N3: np.ndarray
    """float32, in the camera frame, metres."""
    group_N: np.ndarray
    """int64; frames that share a look share a group, which must not be split."""
    family_N: np.ndarray
    """int64, indices into the set's families."""


def scenes(wanted: SceneSet, simulator: Simulator, folder: Path, console: Console) -> Scenes:
    """Return labelled frames, rendered where they are not there yet.

    Args:
        wanted: Which.
        simulator: Who renders them.
        folder: Where rendered sets are kept, each under the digest of its description.
        console: Where progress is shown.

    Raises:
        UserError: A family is unknown, there are fewer frames than families, or the machine has no usable OpenGL.
    """
    try:
        place = kept_folder(
            folder / _digest(wanted), lambda unfinished: _render(wanted, simulator, unfinished, console)
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    return Scenes(*(np.load(place / f"{name}.npy", mmap_mode="r") for name in Scenes._fields))


def _digest(wanted: SceneSet) -> str:
    return hashlib.blake2b(json.dumps(asdict(wanted)).encode(), digest_size=6).hexdigest()


def _render(wanted: SceneSet, simulator: Simulator, place: Path, console: Console) -> None:
    share = wanted.frames // len(wanted.families)
    if share == 0:
        raise UserError(f"{wanted.frames} frames are too few for {len(wanted.families)} scene families.")
    total, side = share * len(wanted.families), wanted.image_size
    kinds = {"frames_NHWC": ((side, side, 3), np.uint8), "depth_NHW": ((side, side), np.float32)}
    kinds |= {"segmentation_NHW": ((side, side), np.uint8), "gripper_pose_N44": ((4, 4), np.float32)}
    kinds |= {"object_position_N3": ((3,), np.float32), "group_N": ((), np.int64), "family_N": ((), np.int64)}
    arrays = {name: new_array(place / f"{name}.npy", kind, (total, *shape)) for name, (shape, kind) in kinds.items()}
    with progress_bar("rendering scenes", total, console) as advance:
        for number, family in enumerate(wanted.families):
            renderer = simulator.renderer(family, side, wanted.seed)
            try:
                for index in range(share):
                    sample, row = renderer.sample(index), number * share + index
                    arrays["frames_NHWC"][row] = sample.frame
                    arrays["depth_NHW"][row] = sample.depth
                    arrays["segmentation_NHW"][row] = sample.segmentation
                    arrays["gripper_pose_N44"][row] = _first_in_view(sample, sample.gripper_poses, (4, 4))
                    arrays["object_position_N3"][row] = _first_in_view(sample, sample.object_positions, (3,))
                    arrays["group_N"][row] = number * share + index // simulator.frames_per_look
                    arrays["family_N"][row] = number
                    advance()
            finally:
                renderer.close()
    for array in arrays.values():
        array.flush()
    write_json(place / "scenes.json", asdict(wanted) | {"classes": list(simulator.class_names)})


def _first_in_view(sample: LabelledFrame, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the first pose or position as float32, NaN where there is none or the camera does not see its place."""
    if len(values):
        place = values[0][:3, 3] if len(shape) == 2 else values[0]
        half = len(sample.frame) / 2 / sample.focal_length  # of the view, at a distance of one
        if place[2] > 0 and np.abs(place[:2]).max() < half * place[2]:
            return values[0].astype(np.float32)
    return np.full(shape, np.nan, np.float32)
