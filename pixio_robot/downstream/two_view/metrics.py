"""How far told pairs are from the truth: each divided by its own mean distance, in view 0's frame.

Shape letters: N pairs, V views, h and w grid of points.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from pixio_robot.downstream.task import Metric
from pixio_robot.downstream.two_view.geometry import (
    Geometry,
    angle_between,
    mean_distance,
    rotation_angle,
    rotation_matrix,
)

_INLIER = 1.03  # largest ratio of two lengths
POSE_THRESHOLDS = (1, 2, 3, 4, 5)  # degrees
_ROTATION, _DIRECTION = "rotation_deg", "direction_deg"

METRICS = (
    Metric("pose_auc5", "pose AUC@5°", "%", 100, higher_is_better=True),
    Metric("points_inliers", "points inliers", "%", 100, higher_is_better=True),
    Metric("points_rel", "points rel"),
    Metric("depth_inliers", "depth inliers", "%", 100, higher_is_better=True),
    Metric("depth_rel", "depth rel"),
    Metric("scale_rel", "scale rel"),
    Metric("rays_deg", "rays", "°"),
    Metric("trajectory", "trajectory"),
)
POSE_METRICS = ("pose_auc5", "trajectory")


def pair_errors(told: Geometry, scale_N: Tensor, truth: Geometry) -> dict[str, Tensor]:
    """Return, for every pair (N,), what `METRICS` are means of, and the two errors of its pose.

    Args:
        told: Up to scale.
        scale_N: Times the lengths told gives metres.
        truth: In metres.
    """
    told, known = told.in_view_0(), truth.known_BVhw.float()
    told_points, true_points = told.world_points, truth.world_points
    told_mean_N, true_mean_N = (
        mean_distance(points, truth.known_BVhw).clamp(min=1e-6) for points in (told_points, true_points)
    )

    def over_points(values_NVhw: Tensor) -> Tensor:
        return (values_NVhw.where(truth.known_BVhw, 0.0) * known).sum((1, 2, 3)) / known.sum((1, 2, 3))

    def compared(said: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        said, true = said / told_mean_N.view(-1, 1, 1, 1, 1), true / true_mean_N.view(-1, 1, 1, 1, 1)
        said_norm, true_norm = said.norm(dim=-1), true.norm(dim=-1)
        ratio = torch.maximum(said_norm / true_norm, true_norm / said_norm)
        return over_points((said - true).norm(dim=-1) / true_norm), over_points((ratio < _INLIER).float())

    points_rel, points_inliers = compared(told_points, true_points)
    depth_rel, depth_inliers = compared(told.camera_points[..., 2:], truth.camera_points[..., 2:])
    way = told.translation_BV3 / told_mean_N.view(-1, 1, 1) - truth.translation_BV3 / true_mean_N.view(-1, 1, 1)
    turn_V = rotation_angle(rotation_matrix(told.quaternion_BV4), rotation_matrix(truth.quaternion_BV4))
    direction = torch.rad2deg(angle_between(told.translation_BV3[:, 1], truth.translation_BV3[:, 1]))
    return {
        "points_inliers": points_inliers,
        "points_rel": points_rel,
        "depth_inliers": depth_inliers,
        "depth_rel": depth_rel,
        "scale_rel": (scale_N * told_mean_N - true_mean_N).abs() / true_mean_N,
        "rays_deg": over_points(torch.rad2deg(angle_between(told.rays_BVhw3, truth.rays_BVhw3))),
        "trajectory": way.square().sum(-1).mean(-1).sqrt(),
        _ROTATION: torch.rad2deg(turn_V[:, 1]),
        _DIRECTION: torch.minimum(direction, 180 - direction),
    }


def per_pair_auc(errors: Mapping[str, Tensor], thresholds: tuple[int, ...] = POSE_THRESHOLDS) -> Tensor:
    """Return the share (N,) of thresholds in degrees that both errors of a pair's pose are below: its mean is the AUC."""
    larger_N1 = torch.maximum(errors[_ROTATION], errors[_DIRECTION])[:, None]
    return (larger_N1 < torch.tensor(thresholds, device=larger_N1.device)).float().mean(1)


def values_of(errors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return for every metric its value for each pair (N,)."""
    values = {"pose_auc5": per_pair_auc(errors), **errors}
    return {metric.name: values[metric.name] for metric in METRICS}
