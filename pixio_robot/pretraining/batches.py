"""Training batches as a function of (seed, step) alone, prepared one step ahead.

Every step seeds its own random numbers and every epoch its own order, so that a resumed run needs no generator
state to repeat the uninterrupted one.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from pixio_robot.pretraining.augment import crop_and_resize, random_crops
from pixio_robot.pretraining.config import PretrainConfig
from pixio_robot.pretraining.sources import ImageCache

ORDER, CROPS, STEP = range(3)  # independent streams of random numbers


def generator_for(seed: int, stream: int, number: int) -> torch.Generator:
    """Return a CPU generator that depends on all three numbers."""
    state = np.random.SeedSequence([seed, stream, number]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def image_indices(seed: int, step: int, batch_size: int, images: int) -> list[int]:
    """Pick the images of a step from one random order per epoch, epochs laid end to end."""
    first = step * batch_size
    epochs = range(first // images, (first + batch_size - 1) // images + 1)
    order = torch.cat([torch.randperm(images, generator=generator_for(seed, ORDER, epoch)) for epoch in epochs])
    offset = first - epochs.start * images
    return order[offset : offset + batch_size].tolist()


def crop_batch(config: PretrainConfig, source: ImageCache, step: int) -> Tensor:
    """Read and crop the images of one step: uint8 (B, 3, size, size)."""
    indices = image_indices(config.seed, step, config.batch_size, len(source))
    generator = generator_for(config.seed, CROPS, step)
    boxes = random_crops(source.aspect_N[indices], source.side, config.crop_scale, config.crop_ratio, generator)
    return crop_and_resize(source.read(indices), boxes, config.image_size)


def training_batches(config: PretrainConfig, source: ImageCache, first: int, last: int) -> Iterator[tuple[int, Tensor]]:
    """Yield (step, uint8 batch) for steps first…last-1 while a thread prepares the next one."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(crop_batch, config, source, first)
        for step in range(first, last):
            batch_BCHW = following.result()
            if step + 1 < last:
                following = pool.submit(crop_batch, config, source, step + 1)
            yield step, batch_BCHW
