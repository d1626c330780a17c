"""The four probes, each the same procedure for every encoder.

Shape letters: n frames, D features, h and w patch-grid size, R side of the label grid, K targets of a patch, C classes.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pixio_robot.downstream.dense.metrics import SegmentationScore, delta, mean_iou
from pixio_robot.downstream.probes.features import ProbeFeatures
from pixio_robot.downstream.probes.scenes import LABEL_GRID, MAX_DEPTH, ProbeScenes, Split
from pixio_robot.encoders.probing.ridge import LinearMap, best_map, ridge_path

MIN_DEPTH = 0.05  # metres
# Class scores are divided by the class's share to this power, chosen on the validation split: least squares alone
# gives rare classes away, and the mean IoU counts them like any other.
PRIOR_POWERS = (0.0, 0.5, 1.0)


class ProbeResult(NamedTuple):
    """What was measured on the test frames of one split; NaN where the scenes have no such label."""

    object_position_cm: float
    gripper_position_cm: float
    gripper_orientation_deg: float
    depth_delta1: float
    segmentation_miou: float


def probe(features: ProbeFeatures | None, scenes: ProbeScenes, split: Split) -> ProbeResult:
    """Fit and test all probes; without features, what guessing the training frames' mean or commonest class gives."""
    position, orientation = _gripper(features, scenes, split)
    object_position = _position(features, scenes.object_position_N3, split)
    if features is None:
        return ProbeResult(object_position, position, orientation, *_guess_labels(scenes, split))
    # One decomposition of the tokens serves depth and classes.
    inputs, grid = _dense(features, split.training)
    depth_MK = _to_patches(_log_depth(scenes)[split.training], *grid)
    classes_MK = _one_hot_patches(scenes, split.training, *grid)
    maps = ridge_path(inputs, torch.cat([depth_MK, classes_MK], dim=1))
    cells, every = depth_MK.shape[1], depth_MK.shape[1] + classes_MK.shape[1]
    return ProbeResult(
        object_position,
        position,
        orientation,
        _depth(features, scenes, split, [fit.columns(0, cells) for fit in maps]),
        _segmentation(features, scenes, split, [fit.columns(cells, every) for fit in maps]),
    )


def rotation_error_deg(rotation_n33: Tensor, other_n33: Tensor) -> Tensor:
    """Angle of the rotation between two orientations, degrees: (n,)."""
    trace_n = (rotation_n33 * other_n33).sum(dim=(1, 2))
    return torch.rad2deg(((trace_n - 1) / 2).clamp(-1, 1).acos())


def nearest_rotation(columns_n6: Tensor) -> Tensor:
    """Make rotation matrices of two predicted columns by Gram-Schmidt (arXiv 1812.07035): (n, 6) → (n, 3, 3)."""
    first, second = columns_n6[:, :3], columns_n6[:, 3:]
    x = torch.nn.functional.normalize(first, dim=1)
    y = torch.nn.functional.normalize(second - (x * second).sum(dim=1, keepdim=True) * x, dim=1)
    return torch.stack([x, y, torch.linalg.cross(x, y)], dim=2)


def _labelled(split: Split, labels: Tensor) -> Split:
    known_N = labels.flatten(1).isfinite().all(dim=1)
    return Split(*(rows[known_N[rows]] for rows in split))


def _enough(split: Split) -> bool:
    return all(len(rows) > 1 for rows in split)


def _guess(targets_nK: Tensor) -> LinearMap:
    return LinearMap(torch.zeros(1, targets_nK.shape[1]), targets_nK.mean(dim=0))


def _pose_inputs(features: ProbeFeatures | None, rows: Tensor) -> Tensor:
    return features.pose(rows) if features else torch.zeros(len(rows), 1)


def _position(features: ProbeFeatures | None, position_N3: Tensor, split: Split) -> float:
    split = _labelled(split, position_N3)
    if not _enough(split):
        return float("nan")
    maps = _fits(features, position_N3[split.training], split)
    return _position_error_cm(features, maps, position_N3, split)


def _gripper(features: ProbeFeatures | None, scenes: ProbeScenes, split: Split) -> tuple[float, float]:
    """Return the errors of the gripper's position, cm, and orientation, degrees; one decomposition serves both."""
    rotation_N33, position_N3 = scenes.gripper_rotation_N33, scenes.gripper_position_N3
    columns_N6 = rotation_N33.transpose(1, 2)[:, :2].flatten(1)
    targets_N9 = torch.cat([columns_N6, position_N3], dim=1)
    split = _labelled(split, targets_N9)
    if not _enough(split):
        return float("nan"), float("nan")

    def error_deg(fit: LinearMap, inputs: Tensor, rows: Tensor) -> float:
        return rotation_error_deg(nearest_rotation(fit(inputs)), rotation_N33[rows]).mean().item()

    maps = _fits(features, targets_N9[split.training], split)
    inputs = _pose_inputs(features, split.validation)
    chosen = best_map([fit.columns(0, 6) for fit in maps], lambda fit: error_deg(fit, inputs, split.validation))
    orientation = error_deg(chosen, _pose_inputs(features, split.test), split.test)
    return _position_error_cm(features, [fit.columns(6, 9) for fit in maps], position_N3, split), orientation


def _fits(features: ProbeFeatures | None, targets_nK: Tensor, split: Split) -> list[LinearMap]:
    return ridge_path(features.pose(split.training), targets_nK) if features else [_guess(targets_nK)]


def _position_error_cm(
    features: ProbeFeatures | None, maps: list[LinearMap], position_N3: Tensor, split: Split
) -> float:
    def error_cm(fit: LinearMap, inputs: Tensor, rows: Tensor) -> float:
        return 100 * (fit(inputs) - position_N3[rows]).norm(dim=1).mean().item()

    inputs = _pose_inputs(features, split.validation)
    chosen = best_map(maps, lambda fit: error_cm(fit, inputs, split.validation))
    return error_cm(chosen, _pose_inputs(features, split.test), split.test)


def _to_patches(labels_nRR: Tensor, h: int, w: int) -> Tensor:
    """Gather the labels of every patch: (n, R, R) → (n·h·w, K)."""
    rows, columns = LABEL_GRID // h, LABEL_GRID // w
    cells = labels_nRR.view(-1, h, rows, w, columns)
    return cells.transpose(2, 3).reshape(-1, rows * columns)


def _from_patches(labels_MK: Tensor, h: int, w: int) -> Tensor:
    """Undo `_to_patches`; further dimensions stay last."""
    rows, columns = LABEL_GRID // h, LABEL_GRID // w
    cells = labels_MK.view(-1, h, w, rows, columns, *labels_MK.shape[2:]).transpose(2, 3)
    return cells.reshape(-1, LABEL_GRID, LABEL_GRID, *labels_MK.shape[2:])


def _dense(features: ProbeFeatures, rows: Tensor) -> tuple[Tensor, tuple[int, int]]:
    tokens_nhwD = features.dense(rows)
    return tokens_nhwD.flatten(0, 2), (tokens_nhwD.shape[1], tokens_nhwD.shape[2])


def _log_depth(scenes: ProbeScenes) -> Tensor:
    return scenes.on_grid(scenes.depth_NHW).clamp(MIN_DEPTH, MAX_DEPTH).log()


def _depth_accuracy(scenes: ProbeScenes, prediction_nRR: Tensor, rows: Tensor) -> float:
    depth_nRR = scenes.on_grid(scenes.depth_NHW)[rows].clamp_min(MIN_DEPTH)
    near = depth_nRR < MAX_DEPTH
    return delta(prediction_nRR.exp()[near].numpy(), depth_nRR[near].numpy())


def _mean_iou(predicted_nRR: Tensor, actual_nRR: Tensor, classes: int) -> float:
    return mean_iou(*SegmentationScore(classes).image(predicted_nRR.numpy(), actual_nRR.numpy()))


def _one_hot(scenes: ProbeScenes, rows: Tensor) -> Tensor:
    labels_nRR = scenes.on_grid(scenes.classes_NHW)[rows]
    return torch.nn.functional.one_hot(labels_nRR, len(scenes.class_names)).float()


def _one_hot_patches(scenes: ProbeScenes, rows: Tensor, h: int, w: int) -> Tensor:
    """Return every patch's labels, cell by cell and class by class: (n·h·w, K·C)."""
    one_hot_nRRC = _one_hot(scenes, rows)
    return torch.stack([_to_patches(one, h, w) for one in one_hot_nRRC.unbind(-1)], dim=-1).flatten(1)


def _guess_labels(scenes: ProbeScenes, split: Split) -> tuple[float, float]:
    """Guess, at each place of the picture, the mean depth and the commonest class of the training frames there."""
    depth_RR = _log_depth(scenes)[split.training].mean(dim=0)
    class_RR = _one_hot(scenes, split.training).mean(dim=0).argmax(dim=-1)
    actual = scenes.on_grid(scenes.classes_NHW)[split.test]
    return (
        _depth_accuracy(scenes, depth_RR.expand_as(actual), split.test),
        _mean_iou(class_RR.expand_as(actual), actual, len(scenes.class_names)),
    )


def _depth(features: ProbeFeatures, scenes: ProbeScenes, split: Split, maps: list[LinearMap]) -> float:
    inputs, grid = _dense(features, split.validation)
    chosen = best_map(maps, lambda fit: -_depth_accuracy(scenes, _from_patches(fit(inputs), *grid), split.validation))
    prediction = _from_patches(chosen(_dense(features, split.test)[0]), *grid)
    return _depth_accuracy(scenes, prediction, split.test)


def _segmentation(features: ProbeFeatures, scenes: ProbeScenes, split: Split, maps: list[LinearMap]) -> float:
    labels_NRR, classes = scenes.on_grid(scenes.classes_NHW), len(scenes.class_names)
    share_C = _one_hot(scenes, split.training).mean(dim=(0, 1, 2)).clamp_min(1e-6)
    inputs, grid = _dense(features, split.validation)

    def predict(fit: LinearMap, power: float, tokens: Tensor) -> Tensor:
        scores = fit(tokens).unflatten(1, (-1, classes)).clamp_min(0) / share_C**power
        return _from_patches(scores.argmax(dim=-1), *grid)

    candidates = [(fit, power) for fit in maps for power in PRIOR_POWERS]
    actual = labels_NRR[split.validation]
    fit, power = max(candidates, key=lambda pair: _mean_iou(predict(*pair, inputs), actual, classes))
    return _mean_iou(predict(fit, power, _dense(features, split.test)[0]), labels_NRR[split.test], classes)
