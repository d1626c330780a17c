"""Noise that a policy which samples starts from: the same in evaluation, in an artifact and on a robot."""

import numpy as np


def chunk_noise(shape: tuple[int, int], seed: int, chunk: int) -> np.ndarray:
    """Return standard normal noise, float32 (horizon, A), that follows from the episode and the place in it alone.

    So an episode is the same whatever ran before it and beside it.

    Args:
        shape: Horizon and size A of the action.
        seed: Of the episode, at least 0: what its environment was reset with.
        chunk: Number of chunks since the episode began, from 0.
    """
    return np.random.default_rng([seed, chunk]).standard_normal(shape, np.float32)
