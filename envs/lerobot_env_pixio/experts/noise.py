"""The noise that scripted demonstrators record: bursts of random displacement over a small noise of every step."""

import numpy as np

# Chance that a burst starts in a step, its length in steps, and its size in units of the action.
BURST_CHANCE = 0.06
BURST_STEPS = (2, 5)
BURST_SIZE = (0.5, 1.0)
STEP_NOISE = 0.05
# What follows the translation in an action, a rotation, is disturbed less.
REST_SHARE = 0.3


class BurstNoise:
    """Noise to add to successive actions; what follows a burst in a demonstration is the recovery from it.

    Args:
        seed: Decides the noise; several numbers for one of several noises of an episode.
        size: Length of the noise: a translation (3) and whatever else of the action is disturbed with it.
    """

    def __init__(self, seed: int | tuple[int, ...], size: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._burst = np.zeros(size)
        self._burst_steps_left = 0

    def draw(self) -> np.ndarray:
        """Return the next step's noise (size,), in units of the action."""
        size = len(self._burst)
        if self._burst_steps_left == 0 and self._rng.random() < BURST_CHANCE:
            self._burst_steps_left = int(self._rng.integers(*BURST_STEPS))
            direction = self._rng.normal(size=size)
            self._burst = self._rng.uniform(*BURST_SIZE) * direction / np.linalg.norm(direction[:3])
            self._burst[3:] *= REST_SHARE
        noise = self._rng.normal(scale=STEP_NOISE, size=size)
        if self._burst_steps_left > 0:
            self._burst_steps_left -= 1
            noise += self._burst
        return noise
