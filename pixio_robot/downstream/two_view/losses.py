"""What a two-view head minimises: MapAnything's losses for images alone.

Shape letters: B pairs, V views, h and w grid of points.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pixio_robot.downstream.two_view.geometry import Geometry, mean_distance

_ALPHA, _C = 0.5, 0.05  # of the robust regression
_CONFIDENCE = 0.2  # how much it costs to be unsure
_MASK = 0.3
_OTHERS = 0.1  # weight of each term but that of points in view 0's frame


class Prediction(NamedTuple):
    """What a head tells of pairs."""

    geometry: Geometry
    """Up to scale; `known_BVhw` is the truth's."""
    confidence_BVhw: Tensor
    """At least 1."""
    mask_BVhw: Tensor
    """Logit of a depth being there."""
    scale_B: Tensor
    """Times `geometry`'s lengths gives metres."""


def robust(difference: Tensor) -> Tensor:
    """Return the general robust loss of the norm of differences (..., K), (...).

    Source: J. Barron, "A General and Adaptive Robust Loss Function" (2019), equation 1.
    """
    steepness = abs(_ALPHA - 2)
    squared = (difference / _C).square().sum(-1)
    return steepness / _ALPHA * ((squared / steepness + 1) ** (_ALPHA / 2) - 1)


def in_log_space(vectors: Tensor) -> Tensor:
    """Shorten vectors (..., K) to the logarithm of one plus their norm, direction kept."""
    norm = vectors.norm(dim=-1, keepdim=True).clamp(min=1e-8)
    return vectors / norm * torch.log1p(norm)


def two_view_loss(told: Prediction, truth: Geometry) -> Tensor:
    """Return the mean loss (scalar) of pairs.

    All terms but that of the scale are blind to a common factor of all lengths told; points whose depth is not known count in
    the mask alone.

    Args:
        told: By the head.
        truth: In metres.
    """
    said, known = told.geometry, truth.known_BVhw.float()
    said_points, true_points = said.world_points, truth.world_points
    said_mean_B, true_mean_B = (
        mean_distance(said_points, truth.known_BVhw),
        mean_distance(true_points, truth.known_BVhw),
    )
    said_unit, true_unit = (mean.clamp(min=1e-6).view(-1, 1, 1, 1, 1) for mean in (said_mean_B, true_mean_B))

    def over_points(values_BVhw: Tensor) -> Tensor:
        return ((values_BVhw * known).sum((1, 2, 3)) / known.sum((1, 2, 3)).clamp(min=1)).mean()

    points = robust(in_log_space(said_points / said_unit) - in_log_space(true_points / true_unit))
    sure = told.confidence_BVhw
    own = in_log_space(said.camera_points / said_unit) - in_log_space(truth.camera_points / true_unit)
    depth = in_log_space(said.distance_BVhw[..., None] / said_unit)
    depth = depth - in_log_space(truth.distance_BVhw[..., None] / true_unit)
    sign_BV1 = (said.quaternion_BV4 * truth.quaternion_BV4).sum(-1, keepdim=True).sign()
    turn = robust(said.quaternion_BV4 * sign_BV1.where(sign_BV1 != 0, 1.0) - truth.quaternion_BV4).mean()
    way = said.translation_BV3 / said_unit[:, 0, 0] - truth.translation_BV3 / true_unit[:, 0, 0]
    metres = (told.scale_B * said_mean_B.detach())[:, None]
    scale = robust(in_log_space(metres) - in_log_space(true_mean_B[:, None])).mean()
    rays = over_points(robust(said.rays_BVhw3 - truth.rays_BVhw3))
    others = rays + over_points(robust(depth)) + over_points(robust(own)) + turn + robust(way).mean() + scale
    mask = functional.binary_cross_entropy_with_logits(told.mask_BVhw, known)
    return over_points(sure * points - _CONFIDENCE * sure.log()) + _OTHERS * others + _MASK * mask
