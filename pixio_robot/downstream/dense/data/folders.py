"""Folders of images and labels: what is expected of them, and what goes with what.

Shape letters: H and W pixels.
"""

import abc
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.downstream.dense.data.files import read_image
from pixio_robot.downstream.dense.data.sets import DenseData, DenseSet, DenseSource, check_crop

_SHOWN = 8  # entries of a folder in a message


def require_folders(root: Path, title: str, folders: Iterable[str]) -> None:
    """Check that a root has what its public layout has.

    Raises:
        UserError: Something is missing; says what was looked for, and what there is.
    """
    wanted = list(folders)
    if all((root / folder).is_dir() for folder in wanted):
        return
    looked_for = ", ".join(f"{folder}/" for folder in wanted)
    if not root.is_dir():
        raise UserError(f"There is no folder {root}: give the folder of {title}, which holds {looked_for}.")
    there = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in root.iterdir())
    found = ", ".join(there[:_SHOWN]) + (f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else "")
    raise UserError(f"{root} is not laid out as {title} is: looked for {looked_for}, found {found or 'nothing'}.")


def pair(images: Mapping[str, Path], labels: Mapping[str, Path], place: Path) -> list[tuple[Path, Path]]:
    """Match images and labels by name, in the order of the names.

    Args:
        images: By what they are matched by.
        labels: By the same.
        place: Where they are, for the message.

    Raises:
        UserError: There are none, or one has no partner.
    """
    alone = sorted(images.keys() ^ labels.keys())
    if alone or not images:
        first = f"; the first without a partner is {alone[0]}" if alone else ""
        raise UserError(
            f"Images and labels in {place} do not pair: {len(images)} images and {len(labels)} labels{first}."
        )
    return [(images[name], labels[name]) for name in sorted(images)]


def by_stem(folder: Path, suffix: str) -> dict[str, Path]:
    """Return the files of a folder with a suffix, by their names without it."""
    return {path.stem: path for path in sorted(folder.glob(f"*{suffix}"))}


@dataclass(frozen=True)
class PairedFiles:
    """Files of images and labels, and how they are read.

    Attributes:
        pairs: Image and label.
        root: Names are relative to it.
        read_truth: Reads a label.
        rows: Which rows count, of images and labels.
        columns: Which columns count.
    """

    pairs: Sequence[tuple[Path, Path]]
    root: Path
    read_truth: Callable[[Path], np.ndarray]
    rows: slice = slice(None)
    columns: slice = slice(None)

    def image(self, number: int) -> np.ndarray:
        """Read an image, uint8 (H, W, 3)."""
        return read_image(self.pairs[number][0])[self.rows, self.columns]

    def truth(self, number: int) -> np.ndarray:
        """Read a label (H, W).

        Raises:
            UserError: It has another size than its image.
        """
        image, label = self.pairs[number]
        truth = self.read_truth(label)
        with Image.open(image) as opened:  # reads the header alone
            size = opened.size
        if truth.shape != (size[1], size[0]):
            raise UserError(
                f"{label} has {truth.shape[0]}×{truth.shape[1]} px, and its image {image} {size[1]}×{size[0]}: they must be of "
                "one size."
            )
        return truth[self.rows, self.columns]

    def as_set(self) -> DenseSet:
        """Return them as a set."""
        names = [str(image.relative_to(self.root)) for image, _ in self.pairs]
        return DenseSet(names, self.image, self.truth)


class PublicFolder(DenseSource):
    """What the public data sets share: pairs of files under a root, for training and test.

    Attributes:
        lists: Names of the lists of files that papers train and test on; where a root has them, they count.
    """

    lists: Sequence[str] = ()

    def __init__(self, root: Path) -> None:
        """Remember the root."""
        self.root = root.expanduser()

    @abc.abstractmethod
    def files(self) -> tuple[PairedFiles, PairedFiles]:
        """Return the files for training and test.

        Raises:
            UserError: The root is not laid out as it should be, or images and labels do not pair.
        """

    def identity(self) -> dict[str, Any]:
        """Return the root."""
        return {self.name: str(self.root.resolve())}

    def check(self, crop: int) -> None:
        """Read the first image and label for training and test; see `DenseSource.check`."""
        parts = [files.as_set() for files in self.files()]
        for part in parts:
            part.truth(0)
        if self.kind == "depth":  # classes are padded
            check_crop(parts[0].image(0), parts[0].names[0], crop)

    def open(self, console: Console) -> DenseData:
        """List the images; see `DenseSource.open`."""
        training, test = (files.as_set() for files in self.files())
        missing = [name for name in self.lists if not (self.root / name).is_file()]
        without = f"; everything that is there, since the root has no {' and no '.join(missing)}" if missing else ""
        counts = f"{len(training):,} training and {len(test):,} test images"
        console.print(f"{self.title}: {counts}{without}", highlight=False, soft_wrap=True)
        return DenseData(training, {"test": test})
