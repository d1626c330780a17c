"""A generator of frames for an entry point: what a simulator would render, without one."""

import os

import numpy as np


class ToyFrames:
    def __init__(self, image_size: int, seed: int, families: tuple[str, ...] | None = None) -> None:
        if families and set(families) - {"grey", "red"}:
            raise ValueError(f"unknown scene family in {families}: choose from grey, red.")
        self.size, self.seed = image_size, seed

    def frame(self, index: int) -> np.ndarray:
        if self.size == 1:
            os._exit(3)  # as a graphics driver may
        rng = np.random.default_rng([self.seed, index])
        return rng.integers(0, 256, (self.size, self.size, 3), dtype=np.uint8)
