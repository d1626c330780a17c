"""Scenes in the WAI layout, as MapAnything's data have it: written for rendered pairs, read for these and for a user's.

    <set>/<scene>/scene_meta.json             intrinsics, and each frame's files and pose
                  images/*.png                or .jpg
                  depth/*.exr                 metres along the camera's axis; 0 or infinite where there is none
                  covisibility/v0/*.npy       (F, F): share of frame i that frame j sees

Cameras are OpenCV's: x right, y down, z forward; poses go from camera to world; pixels have their centres at whole numbers.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pixio_robot.common.errors import UserError
from pixio_robot.common.storage.files import is_file_inside, write_json
from pixio_robot.downstream.scenes import PosedFrame
from pixio_robot.downstream.two_view.exr import read_exr, write_exr
from pixio_robot.images.decoding import decode

META_FILE = "scene_meta.json"
_INTRINSICS = ("fl_x", "fl_y", "cx", "cy", "w", "h")
_DEPTH_NAMES = ("depth", "gt_depth", "rendered_depth")


@dataclass(frozen=True)
class Frame:
    """A frame of a scene, its files not yet read.

    Attributes:
        image: File.
        depth: File.
        pose: float64 (4, 4), camera to world.
        intrinsics: float64 fx, fy, cx, cy (4,), in pixels.
        size: Width and height in pixels.
    """

    image: Path
    depth: Path
    pose: np.ndarray
    intrinsics: np.ndarray
    size: tuple[int, int]

    def read(self) -> tuple[Image.Image, np.ndarray]:
        """Return the image and its depth (H, W), float32.

        Raises:
            UserError: A file cannot be read, or is of another size than the scene says.
        """
        image = decode(self.image)
        if isinstance(image, Exception):
            raise UserError(f"{self.image} is no image that can be read ({image}).")
        depth = read_exr(self.depth)
        for path, size in ((self.image, image.size), (self.depth, depth.shape[::-1])):
            if size != self.size:
                raise UserError(
                    f"{path} has {size[0]}×{size[1]} px, but {META_FILE} says {self.size[0]}×{self.size[1]}: write it again "
                    f"at the size that the intrinsics are for."
                )
        return image, depth


@dataclass(frozen=True)
class Scene:
    """A scene of a set.

    Attributes:
        name: Of its folder.
        frames: In the order of `scene_meta.json`.
        covisibility: (F, F), share of frame i that frame j sees.
    """

    name: str
    frames: Sequence[Frame]
    covisibility: np.ndarray

    def pairs(self, least: float) -> list[tuple[int, int]]:
        """Return the pairs of frames that each see at least a share of the other."""
        both = np.minimum(self.covisibility, self.covisibility.T)
        return [(int(i), int(j)) for i, j in zip(*np.nonzero(np.triu(both >= least, 1)))]


def write_scene(folder: Path, views: Sequence[PosedFrame], covisibility: np.ndarray) -> None:
    """Write a scene of square frames.

    Args:
        folder: Of the scene; it does not exist yet.
        views: Its frames.
        covisibility: float32 (F, F).
    """
    for part in ("images", "depth", "covisibility/v0"):
        (folder / part).mkdir(parents=True)
    frames = []
    for number, view in enumerate(views):
        name, side = f"{number:06d}", len(view.frame)
        image, depth = f"images/{name}.png", f"depth/{name}.exr"
        Image.fromarray(view.frame).save(folder / image, compress_level=1)
        write_exr(folder / depth, np.where(np.isfinite(view.depth), view.depth, 0).astype(np.float32))
        middle = (side - 1) / 2
        numbers = (view.focal_length, view.focal_length, middle, middle, side, side)
        files = {"frame_name": name, "file_path": image, "image": image, "depth": depth}
        frames.append(files | {"transform_matrix": view.pose.tolist()} | dict(zip(_INTRINSICS, numbers)))
    count = len(views)
    np.save(folder / "covisibility" / "v0" / f"pairwise_covisibility--{count}x{count}.npy", covisibility)
    meta = {"scene_name": folder.name, "dataset_name": folder.parent.name, "version": "0.1"}
    meta |= {"shared_intrinsics": False, "camera_model": "PINHOLE", "camera_convention": "opencv"}
    meta |= {"scale_type": "metric", "scene_modalities": {}, "frames": frames}
    modalities = {name: {"frame_key": name, "format": name} for name in ("image", "depth")}
    write_json(folder / META_FILE, meta | {"frame_modalities": modalities})


def read_scenes(root: Path) -> list[Scene]:
    """Read what the scenes of a set say; images and depth are left for later, but must be there.

    Raises:
        UserError: There is none, or one of them is not in this layout.
    """
    if not root.is_dir():
        raise UserError(f"There is no folder {root}: give one of scenes in the WAI layout, <scene>/{META_FILE}.")
    folders = sorted(path.parent for path in root.glob(f"*/{META_FILE}"))
    if not folders:
        there = sorted(path.name for path in root.iterdir())
        shown = ", ".join(there[:5]) + (f" and {len(there) - 5} more" if len(there) > 5 else "") or "nothing"
        raise UserError(f"{root} holds no scenes in the WAI layout (<scene>/{META_FILE}); it holds {shown}.")
    return [_read_scene(folder) for folder in folders]


def _read_scene(folder: Path) -> Scene:
    place = folder / META_FILE
    try:
        meta = json.loads(place.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{place} is no JSON ({error}).") from error
    if not isinstance(meta, dict) or not isinstance(meta.get("frames"), list) or not meta["frames"]:
        raise UserError(f"{place} has no list of frames (key `frames`).")
    if meta.get("camera_convention") != "opencv":
        raise UserError(
            f"{place} says camera_convention={meta.get('camera_convention')!r}; only opencv (x right, y down, z forward, camera "
            f"to world) is read: convert the poses first."
        )
    key = _depth_key(meta, place)
    frames = [_read_frame(folder, meta | frame, key) for frame in meta["frames"]]
    return Scene(folder.name, frames, _read_covisibility(folder, len(frames)))


def _depth_key(meta: dict[str, Any], place: Path) -> str:
    """Return under which key a frame names its depth map."""
    named = {
        name: entry["frame_key"]
        for name, entry in (meta.get("frame_modalities") or {}).items()
        if isinstance(entry, dict) and entry.get("format") == "depth" and "frame_key" in entry
    }
    known = [named.get(name, name) for name in _DEPTH_NAMES if name in named or name in meta["frames"][0]]
    if not known and not named:
        raise UserError(
            f"{place} names no depth: neither frame_modalities nor the frames have one of {', '.join(_DEPTH_NAMES)}."
        )
    return known[0] if known else next(iter(named.values()))


def _read_frame(folder: Path, entry: dict[str, Any], depth_key: str) -> Frame:
    """Check a frame; its own intrinsics go before the scene's, which are in `entry`, too."""
    place = f"Frame {entry.get('frame_name')!r} of {folder / META_FILE}"
    image = entry.get("image", entry.get("file_path"))
    wanted = {"file_path": image, depth_key: entry.get(depth_key), "transform_matrix": entry.get("transform_matrix")}
    missing = [name for name, value in wanted.items() if value is None] + [
        name for name in _INTRINSICS if name not in entry
    ]
    if missing:
        raise UserError(f"{place} has no {missing[0]}.")
    if entry.get("camera_model", "PINHOLE") != "PINHOLE":
        raise UserError(
            f"{place} has camera_model={entry['camera_model']!r}; only PINHOLE is read: undistort it first."
        )
    paths = [folder / str(image), folder / str(entry[depth_key])]
    for path in paths:
        if not path.is_file():
            raise UserError(f"{place} names {path}, which is not there.")
        if not is_file_inside(path, folder):
            raise UserError(
                f"{place} names {path}, which is outside the scene's folder and not read: put the file into it."
            )
    try:
        pose = np.array(entry["transform_matrix"], np.float64).reshape(4, 4)
        numbers = np.array([entry[name] for name in _INTRINSICS], np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{place} has a transform_matrix or intrinsics that are no numbers.") from None
    turn = pose[:3, :3]
    if not np.isfinite(pose).all() or not np.allclose(turn @ turn.T, np.eye(3), atol=1e-3) or np.linalg.det(turn) < 0:
        raise UserError(f"{place} has a transform_matrix that is no rigid motion (rotation and translation).")
    if not np.isfinite(numbers).all() or (numbers[[0, 1, 4, 5]] <= 0).any():
        raise UserError(f"{place} has intrinsics that no camera has: {dict(zip(_INTRINSICS, numbers.tolist()))}.")
    return Frame(paths[0], paths[1], pose, numbers[:4], (int(numbers[4]), int(numbers[5])))


def _read_covisibility(folder: Path, count: int) -> np.ndarray:
    place = folder / "covisibility" / "v0"
    files = sorted(place.glob("*.npy"))
    if len(files) != 1:
        raise UserError(f"{place} must hold one .npy of which frames see the same, and holds {len(files)}.")
    try:
        shares = np.load(files[0], allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f"{files[0]} is no array of numbers ({error}).") from error
    if shares.shape != (count, count):
        raise UserError(f"{files[0]} has shape {shares.shape}, but the scene has {count} frames.")
    return shares
