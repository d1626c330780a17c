"""Ridge regression in closed form, its penalty chosen on a validation split.

Shape letters: N samples, D features, K targets.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

# Relative to the mean eigenvalue of the features' covariance, so that the same grid serves every encoder.
PENALTIES = tuple(10.0**exponent for exponent in range(-5, 4))

_ROWS_AT_A_TIME = 8192


class LinearMap(NamedTuple):
    """A fitted probe: features (…, D) to targets (…, K)."""

    weight_DK: Tensor
    bias_K: Tensor

    def columns(self, first: int, last: int) -> "LinearMap":
        """Keep the targets first…last-1."""
        return LinearMap(self.weight_DK[:, first:last], self.bias_K[first:last])

    def __call__(self, features: Tensor) -> Tensor:
        """Apply the map."""
        return features @ self.weight_DK + self.bias_K


def ridge_path(features_ND: Tensor, targets_NK: Tensor) -> list[LinearMap]:
    """Fit one map for every penalty, through the smaller Gram matrix.

    Features are standardised, dimension by dimension; the bias is not penalised. Equations are solved in float64, since
    features may be nearly collinear; a Cholesky decomposition per penalty takes a tenth of one eigendecomposition.
    """
    mean_D, deviation_D = features_ND.mean(dim=0), features_ND.std(dim=0).clamp_min(1e-6)
    x_ND = (features_ND - mean_D) / deviation_D
    mean_K = targets_NK.mean(dim=0)
    y_NK = targets_NK - mean_K
    dual = x_ND.shape[1] > x_ND.shape[0]
    gram = _gram(x_ND.T if dual else x_ND)
    right = (y_NK if dual else x_ND.T @ y_NK).double()
    eye = torch.eye(len(gram), dtype=gram.dtype)
    scale = gram.diagonal().mean().clamp_min(torch.finfo(gram.dtype).tiny ** 0.5)  # features may be constant
    maps = []
    for penalty in PENALTIES:
        factor = torch.linalg.cholesky(gram + penalty * scale * eye)
        solution = torch.cholesky_solve(right, factor).to(x_ND.dtype)
        weight_DK = (x_ND.T @ solution if dual else solution) / deviation_D[:, None]
        maps.append(LinearMap(weight_DK, mean_K - mean_D @ weight_DK))
    return maps


def _gram(matrix: Tensor) -> Tensor:
    """Return matrixᵀ · matrix in float64, a part of the rows at a time to save memory.

    In float32, rounding alone can make it indefinite by more than the smallest penalty.
    """
    gram = torch.zeros(matrix.shape[1], matrix.shape[1], dtype=torch.float64)
    for rows in matrix.split(_ROWS_AT_A_TIME):
        rows = rows.double()
        gram += rows.T @ rows
    return gram


def best_map(maps: list[LinearMap], error: Callable[[LinearMap], float]) -> LinearMap:
    """Return the map with the smallest error."""
    return min(maps, key=error)
