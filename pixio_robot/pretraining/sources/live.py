"""Frames rendered while training, by child processes, so that the trainer never imports a simulator.

A distribution offers frames through an entry point of the group `pixio_robot.frames`: a callable
`open(image_size, seed, families=None)` whose result has `frame(index) -> uint8 (H, W, 3)`, a function of seed and
index alone.
"""

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from importlib.metadata import entry_points

import numpy as np

from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.common.workers import WorkerPool
from pixio_robot.pretraining.sources.grouped import Group, GroupedStream, Item
from pixio_robot.pretraining.sources.stream import Lane

ENTRY_POINTS = "pixio_robot.frames"
# Consecutive frames may share what is slow to change: here one process renders them.
FRAMES_PER_UNIT = 64


class LiveStream(GroupedStream):
    """Frames that never repeat, rendered ahead of the trainer.

    Args:
        generator: Name of an entry point in the group `pixio_robot.frames`.
        side: Side of the frames in pixels.
        seed: Seed of the frames.
        families: Families of scenes to render; None takes all.
        workers: Processes that render; None takes one per core.
        units_in_memory: Blocks of 64 consecutive frames that are shuffled together.

    Raises:
        UserError: There is no such entry point.
    """

    def __init__(
        self,
        generator: str,
        side: int = 160,
        seed: int = 0,
        families: Sequence[str] | None = None,
        workers: int | None = None,
        units_in_memory: int = 16,
    ) -> None:
        known = entry_points(group=ENTRY_POINTS).names
        if generator not in known:
            hint = nearest_name(generator, known) if known else "Install lerobot_env_pixio, which has one."
            raise UserError(f"Unknown generator of frames {generator!r}. {hint}")
        recipe = f"live {generator} {side} {seed} {units_in_memory} {list(families) if families else None}"
        fingerprint = hashlib.sha256(recipe.encode()).hexdigest()[:16]
        super().__init__(f"the frames of {generator}", fingerprint, side, units_in_memory)
        self._generator = (self.label, generator, side, seed, tuple(families) if families else None)
        self._workers = workers or os.cpu_count() or 1
        self._turn = threading.Lock()  # lanes are read by threads of their own

    @cached_property
    def _pool(self) -> WorkerPool[int, list[Item]]:
        return WorkerPool(_open_frames, self._generator, self._workers, preload=[__name__])

    def check(self, lanes: int) -> None:
        """Accept any number of lanes."""

    def lane_units(self, epoch: int, lane: Lane) -> list[int]:
        """Return the next blocks of a lane; blocks have numbers without end, and lanes take turns."""
        first = epoch * self.units_in_memory
        return [number * lane.lanes + lane.lane for number in range(first, first + self.units_in_memory)]

    def read(self, units: Iterable[int], rng: np.random.Generator) -> Group:
        """Have the frames of some blocks rendered."""
        firsts = [unit * FRAMES_PER_UNIT for unit in units]
        waiting, blocks = deque(firsts), dict[int, list[Item]]()
        with self._turn:
            while len(blocks) < len(firsts):
                while waiting and self._pool.has_idle_worker:
                    self._pool.submit(waiting.popleft())
                for outcome in self._pool.wait():
                    if outcome.result is None:
                        raise UserError(f"Cannot render {self.label}: {outcome.crash}.\n{outcome.details}")
                    blocks[outcome.task] = outcome.result
        items = [item for first in firsts for item in blocks[first]]
        return Group(items, len(items))


def _open_frames(
    label: str, generator: str, side: int, seed: int, families: tuple[str, ...] | None
) -> Callable[[int], list[Item]]:
    """In a worker: open the generator; return what renders the block that begins with a frame."""
    (entry,) = entry_points(group=ENTRY_POINTS, name=generator)
    try:
        frames = entry.load()(side, seed, families)
    except ValueError as error:
        raise UserError(f"Cannot render {label}: {error}") from error
    return lambda first: [
        Item(f"frame {index}", frames.frame(index)) for index in range(first, first + FRAMES_PER_UNIT)
    ]
