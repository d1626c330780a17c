"""Images of known classes: from folders of files, or families of simulated scenes.

Shape letters: B batch, H and W pixels.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import batched
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pixio_robot.common.errors import UserError
from pixio_robot.images.decoding import decode
from pixio_robot.images.preprocessing import frames_to_images

_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp"))
_TEST_FOLDERS = ("test", "val", "validation")
_BATCH, _THREADS = 64, 2


@dataclass(frozen=True)
class LabelledFiles:
    """Image files and their classes."""

    files: Sequence[Path]
    labels: Sequence[int]


@dataclass(frozen=True)
class ImageFolder:
    """`<root>/train/<class>/…` and `<root>/test/<class>/…`."""

    root: Path
    classes: Sequence[str]
    training: LabelledFiles
    test: LabelledFiles

    @classmethod
    def open(cls, root: Path, setting: str = "data.images") -> "ImageFolder":
        """List the files.

        Args:
            root: The folder.
            setting: Where the user names it, for the message.

        Raises:
            UserError: A folder is missing or empty, or the parts have other classes.
        """
        found = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
        tests = [name for name in _TEST_FOLDERS if name in found]
        if "train" not in found or not tests:
            expected = f"train/<class>/ and one of {', '.join(f'{name}/' for name in _TEST_FOLDERS)}"
            there = f"there is {', '.join(found) or 'no folder'}" if root.is_dir() else "there is no such folder"
            raise UserError(f"{setting}={root}: expected {expected}; {there}.")
        training, test = root / "train", root / tests[0]
        classes, others = _classes(training), _classes(test)
        if not classes or classes != others:
            differing = sorted(set(classes) ^ set(others))
            raise UserError(
                f"{training} has {len(classes)} classes and {test} {len(others)}"
                + (f"; {differing[0]!r} is in one of them alone." if differing else ".")
            )
        return cls(root, classes, _listed(training, classes), _listed(test, classes))


def _classes(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def _listed(folder: Path, classes: Sequence[str]) -> LabelledFiles:
    files, labels = [], []
    for label, name in enumerate(classes):
        of_class = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in _SUFFIXES)
        if not of_class:
            raise UserError(f"{folder / name} has no image ({', '.join(sorted(_SUFFIXES))}).")
        files += of_class
        labels += [label] * len(of_class)
    return LabelledFiles(files, labels)


def file_batches(files: Sequence[Path], resize: int, crop: int) -> Iterator[Tensor]:
    """Yield images (B, 3, crop, crop) in [0, 1], in order.

    Args:
        files: Image files.
        resize: Shorter side in pixels that images are resized to, bicubic.
        crop: Side in pixels of the central crop.

    Raises:
        UserError: A file cannot be decoded.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        for some in batched(files, _BATCH):
            pictures = pool.map(lambda file: _cropped(file, resize, crop), some)
            yield frames_to_images(torch.from_numpy(np.stack(list(pictures))))


def _cropped(file: Path, resize: int, crop: int) -> np.ndarray:
    image = decode(file)
    if isinstance(image, Exception):
        raise UserError(f"{file} cannot be read as an image ({image}).")
    scale = resize / min(image.size)
    width, height = (max(crop, round(side * scale)) for side in image.size)
    left, top = (width - crop) // 2, (height - crop) // 2
    resized = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + crop, top + crop)))


def frame_batches(frames_NHWC: np.ndarray) -> Iterator[Tensor]:
    """Yield rendered frames as images (B, 3, H, W) in [0, 1], in order."""
    for start in range(0, len(frames_NHWC), _BATCH):
        yield frames_to_images(torch.from_numpy(frames_NHWC[start : start + _BATCH].copy()))
