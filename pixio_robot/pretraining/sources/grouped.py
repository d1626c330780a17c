"""Streams that read a few units at a time (tar shards, pieces of video, blocks of frames) and shuffle within them.

Every epoch takes the units in a new order and shares them out to the lanes; a lane reads its units in groups and
holds one group in memory while a thread reads the next, so memory does not depend on the number of images.
Repeating a lane from any sample reads one group again, not the epoch.
"""

import functools
import itertools
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import batched
from typing import Any, NamedTuple

import numpy as np

from pixio_robot.common.errors import UserError
from pixio_robot.images.decoding import decode, shrink
from pixio_robot.pretraining.sources.stream import Lane, Sample, State

DECODED_AHEAD = 32  # images per lane
PREVIEW_UNITS = 4  # neighbours within a unit often show the same scene
_UNITS, _GROUP = range(2)  # independent streams of random numbers


class Item(NamedTuple):
    """One image as it was read: an encoded file, pixels (H, W, 3), or what went wrong.

    What is `opaque` comes from a camera: a fourth channel means nothing.
    """

    name: str
    content: bytes | np.ndarray | Exception
    opaque: bool = False


class Group(NamedTuple):
    """What was read of a few units.

    Attributes:
        items: Images to show, in the order they were read.
        eligible: Number of images that could have been shown, had the dice fallen otherwise.
    """

    items: list[Item]
    eligible: int


def shuffled_share[U](units: Sequence[U], epoch: int, lane: Lane) -> list[U]:
    """Take every `lanes`-th of the units in the order of an epoch, which all lanes have in common."""
    order = np.random.default_rng([lane.seed, _UNITS, epoch]).permutation(len(units))
    return [units[position] for position in order[lane.lane :: lane.lanes]]


def check_share(label: str, units: int, lanes: int) -> None:
    """Refuse more lanes than units.

    Raises:
        UserError: Says how many lanes are possible.
    """
    if units < lanes:
        raise UserError(
            f"{label} has {units} parts to share out to {lanes} lanes: give pretraining.lanes={units} or fewer, or cut "
            "the source into more parts."
        )


class _Pass(NamedTuple):
    """The end of a whole pass over a lane's units, and how many images it could have shown and has shown."""

    eligible: int
    drawn: int


class GroupedStream(ABC):
    """Endless lanes over units that are read whole.

    Args:
        label: What error messages call the source.
        fingerprint: Changes when images or their order change.
        side: Larger images are shrunk until their shorter side has this many pixels.
        units_in_memory: Units of a group.
    """

    images: int | None = None

    def __init__(self, label: str, fingerprint: str, side: int, units_in_memory: int) -> None:
        self.label = label
        self.fingerprint = fingerprint
        self.side = side
        self.units_in_memory = units_in_memory

    @abstractmethod
    def lane_units(self, epoch: int, lane: Lane) -> Sequence[Any]:
        """Return the units of a lane in the order of an epoch."""

    @abstractmethod
    def read(self, units: Iterable[Any], rng: np.random.Generator) -> Group:
        """Read units; what is random about the choice of images comes from `rng`."""

    @abstractmethod
    def check(self, lanes: int) -> None:
        """Refuse a number of lanes that the units cannot be shared out to.

        Raises:
            UserError: Says how many lanes are possible.
        """

    def samples(self, lane: Lane, state: State | None = None) -> Generator[Sample]:
        """Yield a lane's samples without end, from the start or from where `state` was left.

        Raises:
            UserError: A whole pass over the lane gave no image, or the source cannot be read.
        """
        pending: deque[tuple[Item, State, Future[np.ndarray | Exception]] | _Pass] = deque()
        items = self._items(lane, **(state or {"epoch": 0, "group": 0, "offset": 0}))
        skipped: list[str] = []
        good = 0
        try:
            while True:
                while len(pending) < DECODED_AHEAD:
                    following = next(items)
                    if isinstance(following, _Pass):
                        pending.append(following)
                    else:
                        future = _decoders().submit(_pixels, following[0], self.side)
                        pending.append((*following, future))
                first = pending.popleft()
                if isinstance(first, _Pass):
                    self._check_pass(first, good, skipped)
                    good = 0
                    continue
                item, after, future = first
                pixels = future.result()
                if isinstance(pixels, Exception):
                    skipped.append(item.name)
                    continue
                good += 1
                yield Sample(item.name, pixels, pixels.shape[1] / pixels.shape[0], after, tuple(skipped))
                skipped.clear()
        finally:
            items.close()

    def preview(self, count: int) -> list[np.ndarray]:
        """Return up to `count` images, uint8 (H, W, 3), spread over the first few units."""
        units = list(itertools.islice(self.lane_units(0, Lane(seed=0, lane=0, lanes=1)), PREVIEW_UNITS))
        shown: list[np.ndarray] = []
        for number, unit in enumerate(units):
            share = -(-(count - len(shown)) // (len(units) - number))
            items = self.read([unit], np.random.default_rng(0)).items
            places = np.unique(np.linspace(0, len(items) - 1, share).astype(int)) if items else []
            pixels = (_pixels(items[place], self.side) for place in places)
            shown += [image for image in pixels if not isinstance(image, Exception)]
        return shown

    def _check_pass(self, finished: _Pass, good: int, skipped: list[str]) -> None:
        if not finished.eligible:
            raise UserError(f"{self.label} holds no images{self.filters()}: check images.path.")
        if finished.drawn and not good:
            raise UserError(
                f"None of the {finished.drawn} images of {self.label} could be decoded (first: {skipped[0]}): "
                "check the files."
            )

    def filters(self) -> str:
        """Say what keeps images out, to be put into the sentence that there are none."""
        return ""

    def _items(self, lane: Lane, epoch: int, group: int, offset: int) -> Generator[tuple[Item, State] | _Pass]:
        """Yield items of one lane with the state after each, and a mark after every pass done from its beginning."""
        whole = group == offset == 0
        reader = ThreadPoolExecutor(1)
        try:
            plan = self._plan(lane, epoch, group)
            following = reader.submit(self._read_next, plan, lane)
            eligible = drawn = 0
            while True:
                epoch, group, last, read = following.result()
                following = reader.submit(self._read_next, plan, lane)
                items = read.items
                eligible += read.eligible
                drawn += len(items)
                for position in range(offset, len(items)):
                    yield items[position], {"epoch": epoch, "group": group, "offset": position + 1}
                    items[position] = Item("", b"")  # the bytes are no longer needed
                offset = 0
                if last:
                    if whole:
                        yield _Pass(eligible, drawn)
                    eligible = drawn = 0
                    whole = True
        finally:
            reader.shutdown(wait=False, cancel_futures=True)

    def _plan(self, lane: Lane, epoch: int, group: int) -> Iterator[tuple[int, int, bool, tuple[Any, ...]]]:
        """Yield (epoch, group, whether it is the last of the epoch, units) without end."""
        while True:
            groups = list(batched(self.lane_units(epoch, lane), self.units_in_memory))
            for number in range(group, len(groups)):
                yield epoch, number, number == len(groups) - 1, groups[number]
            epoch, group = epoch + 1, 0

    def _read_next(
        self, plan: Iterator[tuple[int, int, bool, tuple[Any, ...]]], lane: Lane
    ) -> tuple[int, int, bool, Group]:
        epoch, number, last, units = next(plan)
        rng = np.random.default_rng([lane.seed, _GROUP, lane.lane, epoch, number])
        read = self.read(units, rng)
        shuffled = [read.items[position] for position in rng.permutation(len(read.items))]
        return epoch, number, last, Group(shuffled, read.eligible)


@functools.cache
def _decoders() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode")


def _pixels(item: Item, side: int) -> np.ndarray | Exception:
    if isinstance(item.content, bytes):
        image = decode(item.content, side, opaque=item.opaque)
        return image if isinstance(image, Exception) else shrink(image, side)
    return item.content
