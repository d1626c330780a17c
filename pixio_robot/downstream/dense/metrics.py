"""Metrics of depth and segmentation, each from what single images give, so that intervals can be had from the images.

Shape letters: N images, M metrics, C classes, S seeds, R resamples, G groups.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from pixio_robot.downstream.dense.data.sets import IGNORED
from pixio_robot.downstream.task import Metric

FEWEST_PIXELS = 10
"""Images with fewer valid pixels are left out of the means of depth."""
_RESAMPLES = 1000

DEPTH_METRICS = (
    Metric("delta1", "δ1", "%", 100, higher_is_better=True),
    Metric("abs_rel", "AbsRel"),
    Metric("rmse", "RMSE", "m"),
    Metric("delta2", "δ2", "%", 100, higher_is_better=True),
    Metric("delta3", "δ3", "%", 100, higher_is_better=True),
    Metric("sq_rel", "SqRel", "m"),
    Metric("rmse_log", "RMSElog"),
    Metric("log10", "log10"),
    Metric("silog", "SiLog"),
)
SEGMENTATION_METRICS = (
    Metric("miou", "mIoU", "%", 100, higher_is_better=True),
    Metric("pixel_accuracy", "pixel accuracy", "%", 100, higher_is_better=True),
    Metric("class_accuracy", "class accuracy", "%", 100, higher_is_better=True),
)
HIGHER_IS_BETTER = {metric.name for metric in (*DEPTH_METRICS, *SEGMENTATION_METRICS) if metric.higher_is_better}


def delta(predicted: np.ndarray, actual: np.ndarray, power: int = 1) -> float:
    """Return the share of depths within a factor of 1.25 to a power of the actual ones."""
    return float(np.mean(np.maximum(predicted / actual, actual / predicted) < 1.25**power))


def mean_iou(right_C: np.ndarray, predicted_C: np.ndarray, actual_C: np.ndarray) -> float:
    """Return the mean of intersection over union over the classes that occur in either.

    Args:
        right_C: Of each class, pixels that are predicted rightly.
        predicted_C: Pixels that are predicted.
        actual_C: Pixels that there are.
    """
    union_C = predicted_C + actual_C - right_C
    occurs = union_C > 0
    return float((right_C[occurs] / union_C[occurs]).mean()) if occurs.any() else np.nan


class Score(Protocol):
    """How predictions of one kind become metrics."""

    def image(self, predicted: np.ndarray, actual: np.ndarray) -> np.ndarray:
        """Return what an image adds: values of one shape for all images."""
        ...

    def metrics(self, images: np.ndarray) -> dict[str, float]:
        """Return the metrics of the images whose values are stacked along the first axis."""
        ...


class DepthScore:
    """Means over images of errors over their valid pixels."""

    def __init__(self, depth_range: tuple[float, float]) -> None:
        """Let depths in a range, in metres, be valid."""
        self.depth_range = depth_range

    def image(self, predicted: np.ndarray, actual: np.ndarray) -> np.ndarray:
        """Return the metrics of an image (M,), NaN where fewer than ten pixels are valid.

        Args:
            predicted: Metres (H, W).
            actual: Metres (H, W); what is not in the range is not valid.
        """
        low, high = self.depth_range
        valid = (actual >= low) & (actual <= high)
        if valid.sum() < FEWEST_PIXELS:
            return np.full(len(DEPTH_METRICS), np.nan)
        guess, truth = predicted[valid].astype(np.float64).clip(low), actual[valid].astype(np.float64)
        error = guess - truth
        log_error = np.log(guess) - np.log(truth)
        values: dict[str, Any] = {f"delta{power}": delta(guess, truth, power) for power in (1, 2, 3)}
        values |= {
            "abs_rel": np.mean(np.abs(error) / truth),
            "sq_rel": np.mean(error**2 / truth),
            "rmse": np.sqrt(np.mean(error**2)),
            "rmse_log": np.sqrt(np.mean(log_error**2)),
            "log10": np.mean(np.abs(log_error)) / np.log(10),
            "silog": np.sqrt(max(np.mean(log_error**2) - 0.5 * np.mean(log_error) ** 2, 0.0)),
        }
        return np.array([values[metric.name] for metric in DEPTH_METRICS])

    def metrics(self, images: np.ndarray) -> dict[str, float]:
        """Return the means over images that have values; NaN where none has."""
        known = images[np.isfinite(images[:, 0])]
        means = known.mean(axis=0) if len(known) else np.full(len(DEPTH_METRICS), np.nan)
        return {metric.name: float(mean) for metric, mean in zip(DEPTH_METRICS, means, strict=True)}


class SegmentationScore:
    """Metrics of counts that are summed over all images."""

    def __init__(self, classes: int) -> None:
        """Count so many classes."""
        self.classes = classes

    def image(self, predicted: np.ndarray, actual: np.ndarray) -> np.ndarray:
        """Return by class how many pixels are right, predicted and actual: int64 (3, C).

        Args:
            predicted: Classes (H, W).
            actual: Classes (H, W); those labelled `IGNORED` do not count.
        """
        counted = actual != IGNORED
        guess, truth = predicted[counted], actual[counted]
        kinds = (guess[guess == truth], guess, truth)
        return np.stack([np.bincount(kind, minlength=self.classes) for kind in kinds])

    def metrics(self, images: np.ndarray) -> dict[str, float]:
        """Return means over the classes that occur: in either for mIoU, in truth for the accuracy of classes."""
        right, predicted, actual = images.sum(axis=0)
        with np.errstate(invalid="ignore"):
            accuracy = right / actual
            pixels = right.sum() / actual.sum()
        return {
            "miou": mean_iou(right, predicted, actual),
            "pixel_accuracy": float(pixels),
            "class_accuracy": float(accuracy[actual > 0].mean()) if actual.any() else np.nan,
        }


def intervals(score: Score, seeds_SN: np.ndarray, groups_N: np.ndarray) -> Mapping[str, tuple[float, float]]:
    """Return 95 % bootstrap intervals of the metrics' means over seeds.

    Images are drawn by groups, and seeds where there are several: trainings are compared on images like these.

    Args:
        score: What makes metrics of images.
        seeds_SN: What `Score.image` gave, by seed and image.
        groups_N: Images of one group, such as views of one scene, are drawn together.
    """
    rng = np.random.default_rng(0)
    _, member_N = np.unique(groups_N, return_inverse=True)
    order_N, sizes_G = np.argsort(member_N, kind="stable"), np.bincount(member_N)
    ends_G = np.cumsum(sizes_G)
    drawn: dict[str, list[float]] = {}
    for _ in range(_RESAMPLES):
        groups = rng.integers(len(sizes_G), size=len(sizes_G))
        rows = np.concatenate([order_N[ends_G[group] - sizes_G[group] : ends_G[group]] for group in groups])
        seeds = rng.integers(len(seeds_SN), size=len(seeds_SN))
        means = [score.metrics(seeds_SN[seed][rows]) for seed in seeds]
        for name in means[0]:
            drawn.setdefault(name, []).append(float(np.mean([mean[name] for mean in means])))
    limits = {
        name: np.nanpercentile(values, (2.5, 97.5)) for name, values in drawn.items() if np.isfinite(values).any()
    }
    return {name: (float(low), float(high)) for name, (low, high) in limits.items()}
