"""What a data set is for dense heads.

Shape letters: H and W pixels, N images.
"""

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from rich.console import Console

from pixio_robot.common.errors import UserError

Kind = Literal["depth", "segmentation"]
IGNORED = 255
"""The class of pixels that do not count."""


@dataclass(frozen=True)
class DenseSet:
    """Images and their truth, read one at a time.

    Attributes:
        names: Of the images, for people.
        image: Reads an image by its number, uint8 (H, W, 3).
        truth: Reads its depth in metres, float32 (H, W), or its classes, uint8 (H, W).
        side: Side of the images in pixels where all are squares of one size; else None.
        key: What features of the images depend on but for the encoder, where they can be kept; else None.
        group_N: Images of one scene share a group.
    """

    names: Sequence[str]
    image: Callable[[int], np.ndarray]
    truth: Callable[[int], np.ndarray]
    side: int | None = None
    key: str | None = None
    group_N: np.ndarray | None = None

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.names)

    @property
    def groups(self) -> np.ndarray:
        """Groups (N,), one for each image where none are known."""
        return np.arange(len(self)) if self.group_N is None else np.asarray(self.group_N)


@dataclass(frozen=True)
class DenseData:
    """What heads are trained on and tested by.

    Attributes:
        training: Images to train on.
        tests: Images to test by; the first is what encoders are ranked by.
    """

    training: DenseSet
    tests: Mapping[str, DenseSet]


class DenseSource(abc.ABC):
    """A data set that can be asked for.

    Attributes:
        name: `scenes`, `nyu`, …
        title: For people, after "on": `NYUv2`.
        kind: What its truth is.
        depth_range: Metres that are valid, of depth.
        classes: Names, of segmentation.
        tests: Keys of `DenseData.tests`, and what to add to a heading; the first, by which encoders are ranked, adds nothing.
    """

    name: str
    title: str
    kind: Kind
    depth_range: tuple[float, float] = (0.0, 0.0)
    classes: Sequence[str] = ()
    tests: Sequence[tuple[str, str]] = (("test", ""),)

    @abc.abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return plain values (JSON) that say which images these are."""

    @abc.abstractmethod
    def check(self, crop: int) -> None:
        """Find out quickly that something is wrong.

        Raises:
            UserError: See `open`; or crops of so many pixels cannot be cut out.
        """

    @abc.abstractmethod
    def open(self, console: Console) -> DenseData:
        """List or render the images.

        Raises:
            UserError: The folder is not what it should be.
        """


def check_crop(image: np.ndarray, name: str, crop: int) -> None:
    """Check that a crop can be cut out of an image.

    Raises:
        UserError: The image is smaller.
    """
    if min(image.shape[:2]) < crop:
        raise UserError(
            f"Crops of {crop} px are larger than {name}, which has {image.shape[0]}×{image.shape[1]}: set a smaller dense.crop."
        )
