"""The row without an encoder: at each place of the picture, what the training images have there.

Shape letters: H and W pixels, R side of the grid of places.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image

from pixio_robot.downstream.dense.data.sets import IGNORED, DenseSet, Kind

_PLACES = 32
_MOST_IMAGES = 2000  # spread over the set: more would say nothing new


def guess(
    training: DenseSet, kind: Kind, depth_range: tuple[float, float], classes: int
) -> Callable[[tuple[int, int]], np.ndarray]:
    """Return what to guess for an image of H×W pixels: the geometric mean of depths, or the commonest class, at each place."""
    rows = np.unique(np.linspace(0, len(training) - 1, min(len(training), _MOST_IMAGES)).round().astype(int))
    places = (_at_places(training.truth(int(row))) for row in rows)
    if kind == "segmentation":
        counts_CRR = np.zeros((classes, _PLACES, _PLACES), np.int64)
        for labels_RR in places:
            for number in np.unique(labels_RR[labels_RR != IGNORED]):
                counts_CRR[number] += labels_RR == number
        counts_CRR[counts_CRR.sum(axis=(1, 2)).argmax()] += counts_CRR.sum(axis=0) == 0  # where nothing was labelled
        common_RR = counts_CRR.argmax(axis=0).astype(np.uint8)
        return lambda size: np.array(Image.fromarray(common_RR).resize((size[1], size[0]), Image.Resampling.NEAREST))
    low, high = depth_range
    total_RR, count_RR = np.zeros((_PLACES, _PLACES)), np.zeros((_PLACES, _PLACES))
    for depth_RR in places:
        valid_RR = (depth_RR >= low) & (depth_RR <= high)
        total_RR += np.log(np.where(valid_RR, depth_RR, 1.0))
        count_RR += valid_RR
    everywhere = total_RR.sum() / max(count_RR.sum(), 1)
    mean_RR = np.where(count_RR > 0, total_RR / np.maximum(count_RR, 1), everywhere)
    image = Image.fromarray(np.exp(mean_RR).astype(np.float32))
    return lambda size: np.array(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))


def _at_places(truth: np.ndarray) -> np.ndarray:
    """Take the value in the middle of each place: (H, W) → (R, R)."""
    rows, columns = (((np.arange(_PLACES) + 0.5) * side / _PLACES).astype(int) for side in truth.shape)
    return truth[np.ix_(rows, columns)]
