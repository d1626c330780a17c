"""Normalisation statistics of a demonstration store, in LeRobot's format."""

from collections.abc import Callable, Mapping

import numpy as np

from pixio_robot.demos.store.layout import Feature

Statistics = dict[str, dict[str, np.ndarray]]

# Means over this many frames differ from those over all by far less than any normalisation feels.
MAX_FRAMES = 256
_FRAMES_AT_ONCE = 32


def compute_statistics(
    features: Mapping[str, Feature], steps: int, read_steps: Callable[[str, np.ndarray], np.ndarray]
) -> Statistics:
    """Return mean, std, min, max and count of each key, as LeRobot's ``stats.json`` has them.

    They are of the first `steps` steps. Low-dimensional keys: over all steps, each (features,). Cameras: over pixels of at
    most 256 frames spread evenly, each (3, 1, 1) for values in [0, 1]. The standard deviation is the population's.
    ``count`` (1,) counts steps or frames.

    Args:
        features: What a step holds.
        steps: How many there are.
        read_steps: Reads steps of a key, see `DemoStore.read_steps`.
    """
    return {
        key: _frame_statistics(feature, steps, lambda chosen, key=key: read_steps(key, chosen))
        if feature.is_image
        else _step_statistics(read_steps(key, np.arange(steps)))
        for key, feature in features.items()
    }


def _step_statistics(values: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "mean": values.mean(axis=0, dtype=np.float64),
        "std": values.std(axis=0, dtype=np.float64),
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "count": np.array([len(values)]),
    }


def _frame_statistics(feature: Feature, steps: int, read: Callable[[np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
    n_frames = min(steps, MAX_FRAMES)
    frames = np.linspace(0, steps - 1, n_frames).round().astype(np.int64)
    # How often each value of a byte occurs, per channel, says all that is asked for, exactly.
    channels = feature.shape[-1]
    occurrences = np.zeros((channels, 256), np.int64)
    for start in range(0, n_frames, _FRAMES_AT_ONCE):
        pixels = read(frames[start : start + _FRAMES_AT_ONCE])
        for channel in range(channels):
            occurrences[channel] += np.bincount(pixels[..., channel].ravel(), minlength=256)
    levels = np.arange(256) / 255.0
    weights = occurrences / occurrences.sum(axis=1, keepdims=True)
    mean = weights @ levels
    std = np.sqrt(np.maximum(weights @ levels**2 - mean**2, 0.0))
    lowest = levels[np.argmax(occurrences > 0, axis=1)]
    highest = levels[255 - np.argmax(occurrences[:, ::-1] > 0, axis=1)]
    per_channel = {"mean": mean, "std": std, "min": lowest, "max": highest}
    return {name: value.reshape(-1, 1, 1) for name, value in per_channel.items()} | {"count": np.array([n_frames])}
