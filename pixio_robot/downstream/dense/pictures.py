"""Rows of image, truth and prediction."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from PIL import Image

from pixio_robot.downstream.dense.data.sets import IGNORED, Kind

_SIDE = 160  # pixels of the height of a panel
_GAP = 4
_DEPTHS, _CLASSES = matplotlib.colormaps["turbo"], matplotlib.colormaps["tab20"]


def picture(
    images: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray],
    kind: Kind,
    depth_range: tuple[float, float],
) -> np.ndarray:
    """Draw a row for each image, uint8 RGB: the image, its truth and its prediction, near is red.

    Args:
        images: uint8 (H, W, 3).
        truths: (H, W), metres or classes; what is not valid is black.
        predictions: (H, W).
        kind: Which.
        depth_range: Metres that are valid.
    """
    rows = []
    for image, truth, prediction in zip(images, truths, predictions, strict=True):
        if kind == "segmentation":
            panels = [image, _classes(truth), _classes(prediction)]
        else:
            valid = (truth >= depth_range[0]) & (truth <= depth_range[1])
            limits = np.percentile(np.log(truth[valid]), (2, 98)) if valid.any() else np.log(depth_range)
            panels = [image, _depths(truth, valid, limits), _depths(prediction, prediction > 0, limits)]
        rows.append(_beside([_fit(panel) for panel in panels]))
    width = max(row.shape[1] for row in rows)
    return np.concatenate(
        [np.pad(row, ((0, _GAP), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    )


def _classes(labels: np.ndarray) -> np.ndarray:
    colours = (255 * _CLASSES(np.arange(256) % 20)[:, :3]).astype(np.uint8)
    colours[IGNORED] = 0
    return colours[labels.astype(np.uint8)]


def _depths(depth: np.ndarray, valid: np.ndarray, limits: np.ndarray) -> np.ndarray:
    span = max(float(limits[1] - limits[0]), 1e-3)
    near = 1 - (np.log(np.where(valid, depth, 1.0)) - limits[0]) / span
    return (255 * _DEPTHS(near.clip(0, 1))[..., :3] * valid[..., None]).astype(np.uint8)


def _fit(panel: np.ndarray) -> np.ndarray:
    width = round(panel.shape[1] * _SIDE / panel.shape[0])
    return np.array(Image.fromarray(panel).resize((width, _SIDE), Image.Resampling.BILINEAR))


def _beside(panels: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.pad(panel, ((0, 0), (0, _GAP), (0, 0)), constant_values=255) for panel in panels], axis=1)
