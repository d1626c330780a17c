"""Losses and metrics are the formulas that papers print."""

import math

import numpy as np
import pytest
import torch

from pixio_robot.downstream.dense.metrics import (
    DEPTH_METRICS,
    DepthScore,
    SegmentationScore,
    delta,
    intervals,
    mean_iou,
)
from pixio_robot.downstream.dense.objective import cross_entropy, silog


def depths(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    actual = rng.uniform(0.5, 9, (12, 15))
    return (actual * rng.lognormal(0.1, 0.3, actual.shape)).astype(np.float32), actual.astype(np.float32)


def test_depth_metrics_are_the_formulas_pixel_by_pixel() -> None:
    predicted, actual = depths()
    actual[:3] = 0.0  # nothing measured
    actual[3, 0] = 11.0  # beyond the range
    actual[3, 1] = np.inf
    pairs = [(float(p), float(a)) for p, a in zip(predicted.flat, actual.flat, strict=True) if 0.001 <= a <= 10]
    assert len(pairs) == 12 * 15 - 3 * 15 - 2
    mean = lambda values: sum(values) / len(pairs)  # noqa: E731
    logs = [math.log(p) - math.log(a) for p, a in pairs]
    expected = {
        "delta1": mean([max(p / a, a / p) < 1.25 for p, a in pairs]),
        "delta2": mean([max(p / a, a / p) < 1.25**2 for p, a in pairs]),
        "delta3": mean([max(p / a, a / p) < 1.25**3 for p, a in pairs]),
        "abs_rel": mean([abs(p - a) / a for p, a in pairs]),
        "sq_rel": mean([(p - a) ** 2 / a for p, a in pairs]),
        "rmse": math.sqrt(mean([(p - a) ** 2 for p, a in pairs])),
        "rmse_log": math.sqrt(mean([d**2 for d in logs])),
        "log10": mean([abs(math.log10(p) - math.log10(a)) for p, a in pairs]),
        "silog": math.sqrt(mean([d**2 for d in logs]) - 0.5 * mean(logs) ** 2),
    }
    score = DepthScore((0.001, 10.0))
    assert score.metrics(score.image(predicted, actual)[None]) == pytest.approx(expected, rel=1e-6)
    assert set(expected) == {metric.name for metric in DEPTH_METRICS}


def test_measures_that_others_share_follow_their_definitions() -> None:
    assert delta(np.array([1.0, 1.2, 2.0, 1.0]), np.array([1.0, 1.0, 1.0, 1.3])) == 0.5
    counts = SegmentationScore(3).image(np.array([0, 1, 1, 1]), np.array([0, 0, 1, 1]))
    # Class 0: 1 of 2, class 1: 2 of 3, class 2 does not occur.
    assert mean_iou(*counts) == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_depth_metrics_are_means_over_images_that_have_ten_valid_pixels() -> None:
    score = DepthScore((0.001, 10.0))
    first, second = (score.image(*depths(seed)) for seed in (1, 2))
    predicted, actual = depths(3)
    few = np.zeros_like(actual)
    few.flat[:9] = actual.flat[:9]
    left_out = score.image(predicted, few)
    assert np.isnan(left_out).all()
    few.flat[9] = 1.0
    assert np.isfinite(score.image(predicted, few)).all()
    got = score.metrics(np.stack([first, left_out, second]))
    assert list(got.values()) == pytest.approx(list((first + second) / 2))


def test_silog_loss_is_its_formula_and_knows_no_invalid_pixel() -> None:
    predicted, actual = (torch.from_numpy(values)[None] for values in depths())
    valid = actual > 3
    difference = predicted[valid].log() - actual[valid].log()
    expected = ((difference**2).mean() - 0.5 * difference.mean() ** 2).sqrt()
    spoilt = torch.where(valid, actual, torch.inf)
    guess = predicted[:, None].requires_grad_()
    loss = silog(guess, spoilt, valid)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert (
        guess.grad is not None and bool(guess.grad.isfinite().all()) and bool((guess.grad[0, 0][~valid[0]] == 0).all())
    )
    assert silog(guess, spoilt, torch.zeros_like(valid)) == 0


def test_cross_entropy_counts_labelled_pixels_alone() -> None:
    torch.manual_seed(0)
    scores, labels = torch.randn(2, 3, 4, 5), torch.randint(3, (2, 4, 5), dtype=torch.uint8)
    labels[0, :2] = 255
    counted = labels != 255
    chosen = scores.log_softmax(dim=1).permute(0, 2, 3, 1)[counted].gather(1, labels[counted].long()[:, None])
    torch.testing.assert_close(cross_entropy(scores, labels), -chosen.mean())
    assert cross_entropy(scores, torch.full_like(labels, 255)) == 0


def test_segmentation_metrics_are_those_of_summed_counts() -> None:
    rng = np.random.default_rng(0)
    score = SegmentationScore(4)
    actual = rng.integers(0, 3, (5, 8, 9)).astype(np.uint8)  # class 3 occurs nowhere
    predicted = np.where(rng.random(actual.shape) < 0.6, actual, rng.integers(0, 3, actual.shape))
    actual[:, 0] = 255
    got = score.metrics(np.stack([score.image(p, a) for p, a in zip(predicted, actual, strict=True)]))
    ious, accuracies = [], []
    for number in range(3):
        mine, theirs = predicted[actual != 255] == number, actual[actual != 255] == number
        ious.append((mine & theirs).sum() / (mine | theirs).sum())
        accuracies.append((mine & theirs).sum() / theirs.sum())
    right = (predicted[actual != 255] == actual[actual != 255]).mean()
    assert got == pytest.approx({"miou": np.mean(ious), "pixel_accuracy": right, "class_accuracy": np.mean(accuracies)})


def test_intervals_hold_the_mean_and_grow_with_what_is_drawn_together() -> None:
    rng = np.random.default_rng(0)
    by_scene = np.repeat(rng.uniform(0, 1, 20), 10)
    images = np.tile((by_scene + rng.normal(0, 0.02, 200))[:, None], (1, len(DEPTH_METRICS)))
    score = DepthScore((0.001, 10.0))
    single = intervals(score, images[None], np.arange(200))["delta1"]
    scenes = intervals(score, images[None], np.repeat(np.arange(20), 10))["delta1"]
    mean = images[:, 0].mean()
    assert scenes[0] < single[0] < mean < single[1] < scenes[1]
    expected = 1.96 * by_scene.std() / math.sqrt(20)
    assert (scenes[1] - scenes[0]) / 2 == pytest.approx(expected, rel=0.2)
