"""Frames rendered while training, by child processes, so that the trainer never imports a simulator.

A distribution offers frames through an entry point of the group `pixio_robot.frames`: a callable
`open(image_size, seed, families=None)` whose result has `frame(index) -> uint8 (H, W, 3)`, a function of seed and
index alone.
"""

import hashlib
import multiprocessing
import os
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib.metadata import entry_points
from typing import Any

import numpy as np

from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.pretraining.sources.grouped import Group, GroupedStream, Item
from pixio_robot.pretraining.sources.stream import Lane

ENTRY_POINTS = "pixio_robot.frames"
# Consecutive frames may share what is slow to change: here one process renders them.
FRAMES_PER_UNIT = 64
_frames: Any = None  # in a child process: the generator of frames


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
        context = multiprocessing.get_context("spawn")  # a forked child would inherit torch's threads and devices
        arguments = (generator, side, seed, tuple(families) if families else None)
        self._pool = ProcessPoolExecutor(workers or os.cpu_count(), context, _open_frames, arguments)

    def check(self, lanes: int) -> None:
        """Accept any number of lanes."""

    def lane_units(self, epoch: int, lane: Lane) -> list[int]:
        """Return the next blocks of a lane; blocks have numbers without end, and lanes take turns."""
        first = epoch * self.units_in_memory
        return [number * lane.lanes + lane.lane for number in range(first, first + self.units_in_memory)]

    def read(self, units: Iterable[int], rng: np.random.Generator) -> Group:
        """Have the frames of some blocks rendered."""
        try:
            blocks = list(self._pool.map(_render, [unit * FRAMES_PER_UNIT for unit in units]))
        except BrokenProcessPool as error:
            raise UserError(f"The processes that render {self.label} ended: see their output above.") from error
        except ValueError as error:
            raise UserError(f"Cannot render {self.label}: {error}") from error
        items = [item for block in blocks for item in block]
        return Group(items, len(items))


def _open_frames(generator: str, side: int, seed: int, families: tuple[str, ...] | None) -> None:
    global _frames
    threading.Thread(target=_end_with_trainer, daemon=True).start()
    _frames = (generator, side, seed, families)


def _end_with_trainer() -> None:
    """End this process, which waits for work without end, when the trainer was killed."""
    trainer = multiprocessing.parent_process()
    assert trainer is not None
    trainer.join()
    os._exit(1)


def _render(first: int) -> list[Item]:
    global _frames
    if isinstance(_frames, tuple):  # opened here and not at the start, since errors there lose their message
        generator, side, seed, families = _frames
        (entry,) = entry_points(group=ENTRY_POINTS, name=generator)
        _frames = entry.load()(side, seed, families)
    return [Item(f"frame {index}", _frames.frame(index)) for index in range(first, first + FRAMES_PER_UNIT)]
