"""What a stream of images is: endless lanes, each repeatable from any of its samples.

A global batch is made of equal parts, one per lane. A lane is a function of seed and lane number alone, and every
sample carries the state from which the lane goes on after it, so a run resumes at the exact sample, on any number
of processes.
"""

from collections.abc import Generator
from typing import Any, NamedTuple, Protocol

import numpy as np

State = dict[str, Any]


class Sample(NamedTuple):
    """One image of a lane.

    Attributes:
        name: Where it came from.
        pixels: uint8 (H, W, 3).
        aspect: Width / height before it was squashed to this shape, if it was.
        state: Plain values from which the lane goes on after this image.
        skipped: Names of what could not be decoded since the sample before.
    """

    name: str
    pixels: np.ndarray
    aspect: float
    state: State
    skipped: tuple[str, ...] = ()


class Lane(NamedTuple):
    """Number of a lane among `lanes` of a run with this seed."""

    seed: int
    lane: int
    lanes: int


class ImageStream(Protocol):
    """A source without random access.

    Attributes:
        fingerprint: Changes when the images or their order change.
        images: Number of images, where it is known.
        side: Pixels of the shorter side that images have at most.
    """

    fingerprint: str
    side: int
    images: int | None

    def check(self, lanes: int) -> None:
        """Refuse a number of lanes that the source cannot be split into.

        Raises:
            UserError: Says how many lanes are possible.
        """
        ...

    def samples(self, lane: Lane, state: State | None = None) -> Generator[Sample]:
        """Yield a lane's samples without end, from the start or from where `state` was left.

        Raises:
            UserError: A whole pass over the lane gave no image, or the source cannot be read.
        """
        ...

    def preview(self, count: int) -> list[np.ndarray]:
        """Return up to `count` of its images, uint8 (H, W, 3), without opening a lane."""
        ...
