"""Training batches as a function of (seed, step) alone, prepared a few steps ahead.

A global batch is made of `config.lanes` equal parts. Process r of w prepares the lanes r·lanes/w … and gets the
part of the global batch that belongs to them, so that the batches of all processes, laid end to end, are the batch
of a single process. Everything random about an image is drawn for the global batch and then cut to the process's
part (`own_part`), so that losses do not depend on the number of processes.

Every step seeds its own random numbers. Sources with random access need no other state; what streams need to go on
is part of every batch.
"""

import functools
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixio_robot.common.errors import UserError
from pixio_robot.engine.objective import Batch
from pixio_robot.images.augment import crop_and_resize, random_crops
from pixio_robot.pretraining.config import TrainingConfig
from pixio_robot.pretraining.crops import Cutter
from pixio_robot.pretraining.sources import ImageCache, ImageSource, Lane, Sample
from pixio_robot.pretraining.sources.mixture import CacheStream

ORDER, CROPS, STEP = range(3)  # independent streams of random numbers
STEPS_AHEAD = 3
_CPU = torch.device("cpu")


def generator_for(seed: int, stream: int, number: int) -> torch.Generator:
    """Return a CPU generator that depends on all three numbers."""
    state = np.random.SeedSequence([seed, stream, number]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def own_part(batch_size: int, process: int = 0, processes: int = 1) -> slice:
    """Return which rows of a global batch belong to a process; draw for all rows, then keep these.

    Raises:
        UserError: The batch cannot be shared out equally.
    """
    if batch_size % processes:
        raise UserError(f"A batch of {batch_size} cannot be shared by {processes} processes: choose a multiple.")
    share = batch_size // processes
    return slice(process * share, (process + 1) * share)


def image_indices(seed: int, step: int, batch_size: int, images: int, shift: int = 0) -> list[int]:
    """Pick the images of a step from one random order per epoch, epochs laid end to end.

    Args:
        seed: Of the orders.
        step: Number of the step.
        batch_size: Images of a step.
        images: How many there are.
        shift: How many more images have been seen than in steps of this size, by a run whose batches had another.
    """
    first = step * batch_size + shift
    epochs = range(first // images, (first + batch_size - 1) // images + 1)
    offset = first - epochs.start * images
    rows = slice(offset, offset + batch_size)
    if len(epochs) == 1:
        return _order(seed, epochs.start, images)[rows].tolist()
    return torch.cat([_order(seed, epoch, images) for epoch in epochs])[rows].tolist()


@functools.lru_cache(maxsize=2)  # drawing 1.28 million takes longer than a small step
def _order(seed: int, epoch: int, images: int) -> Tensor:
    return torch.randperm(images, generator=generator_for(seed, ORDER, epoch))


def training_batches(
    config: TrainingConfig,
    source: ImageSource,
    first: int,
    last: int,
    process: int = 0,
    processes: int = 1,
    state: dict[str, Any] | None = None,
    device: torch.device = _CPU,
    then: Callable[[Batch[Tensor]], Batch[Any]] = lambda batch: batch,
) -> Generator[Batch[Any]]:
    """Yield this process's part of the batches of steps first…last-1 while threads prepare the next ones.

    Args:
        config: Settings.
        source: Where images come from.
        first: Step to begin with.
        last: Step to end before.
        process: Rank of this process.
        processes: Number of processes.
        state: The merged `Batch.state` of step first-1; not needed when `first` is 0.
        device: Where crops may be cut; see `Cutter`.
        then: What else is done to a batch ahead of its step.

    Raises:
        UserError: Batch, lanes and processes do not divide each other, or the source fails.
    """
    own = own_part(config.batch_size, process, processes)
    cutter = Cutter(config, source, device)
    if isinstance(source, ImageCache):
        shift = state["seen"] - first * config.batch_size if state else 0
        yield from ahead(lambda step: then(_cached_batch(config, source, cutter, step, own, shift)), first, last)
        return
    if config.lanes % processes:
        raise UserError(
            f"{config.lanes} lanes cannot be shared by {processes} processes: give pretraining.lanes as a multiple "
            "of the number of processes."
        )
    source.check(config.lanes)
    if first and not state:
        raise UserError(f"There is no state of the images for step {first}: resume from a checkpoint that has one.")
    lanes = range(process * config.lanes // processes, (process + 1) * config.lanes // processes)
    streams = {
        lane: source.samples(Lane(config.seed, lane, config.lanes), state[str(lane)] if state else None)
        for lane in lanes
    }
    try:
        yield from ahead(lambda step: then(_streamed_batch(config, streams, cutter, step, own)), first, last)
    finally:
        for stream in streams.values():
            stream.close()


def preview(source: ImageSource, count: int, size: int) -> Tensor:
    """Return images that show what a source holds, squashed to squares: uint8 (count, size, size, 3).

    They are spread over a cache, or the first of a stream; a stream may have fewer than `count`.
    """
    if isinstance(source, ImageCache):
        source = CacheStream(source)
    frames = [torch.from_numpy(pixels) for pixels in source.preview(count)]
    boxes_B4 = torch.tensor([(0, 0, *frame.shape[:2]) for frame in frames])
    return crop_and_resize(frames, boxes_B4, size).permute(0, 2, 3, 1)


def ahead[T](make: Callable[[int], T], first: int, last: int) -> Iterator[T]:
    """Yield make(first)…make(last-1), made in order by one thread that keeps a few steps ahead."""
    pending: deque[Future[T]] = deque()
    with ThreadPoolExecutor(1) as pool:
        try:
            for step in range(first, last + STEPS_AHEAD):
                if step < last:
                    pending.append(pool.submit(make, step))
                if step >= first + STEPS_AHEAD and pending:
                    yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _cached_batch(
    config: TrainingConfig, source: ImageCache, cutter: Cutter, step: int, own: slice, shift: int
) -> Batch[Tensor]:
    indices = image_indices(config.seed, step, config.batch_size, len(source), shift)[own]
    sides_B2 = torch.full((len(indices), 2), source.side)
    images_BCHW = cutter.of_cache(indices, _boxes(config, source.aspect_N[indices], sides_B2, step, own))
    return Batch(step, images_BCHW, source.names(indices), {"seen": (step + 1) * config.batch_size + shift})


def _streamed_batch(
    config: TrainingConfig, streams: dict[int, Generator[Sample]], cutter: Cutter, step: int, own: slice
) -> Batch[Tensor]:
    samples: list[Sample] = []
    state = {}
    for lane, stream in streams.items():
        samples += islice(stream, config.batch_size // config.lanes)
        state[str(lane)] = samples[-1].state
    frames = [torch.from_numpy(sample.pixels) for sample in samples]
    aspect_B = torch.tensor([sample.aspect for sample in samples])
    sides_B2 = torch.tensor([frame.shape[:2] for frame in frames])
    images_BCHW = cutter(frames, _boxes(config, aspect_B, sides_B2, step, own))
    skipped = tuple(name for sample in samples for name in sample.skipped)
    return Batch(step, images_BCHW, [sample.name for sample in samples], state, skipped)


def _boxes(config: TrainingConfig, aspect_B: Tensor, sides_B2: Tensor, step: int, own: slice) -> Tensor:
    """Draw boxes for the global batch and return those of this process's frames."""
    aspect_all = torch.ones(config.batch_size)
    aspect_all[own] = aspect_B
    sides_all = torch.ones(config.batch_size, 2, dtype=torch.long)
    sides_all[own] = sides_B2
    generator = generator_for(config.seed, CROPS, step)
    return random_crops(aspect_all, sides_all, config.crop_scale, config.crop_ratio, generator)[own]
