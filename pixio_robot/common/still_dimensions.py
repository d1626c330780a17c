"""Numbers that hardly move in the demonstrations, which normalisation must not blow up.

A joint that stands still has a deviation of 0: divided by it, a ten-thousandth of a radian at deployment becomes the largest
input that the policy ever saw. Deviations and ranges therefore have a floor.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Statistics = Mapping[str, Mapping[str, Any]]

FLOOR_SHARE = 1e-3
"""Of the largest range among the numbers of a feature: what moves less stands still."""
FLOOR = 1e-3
"""Where nothing of a feature moves, in its unit."""
_ENDS = (("min", "max"), ("q01", "q99"), ("q10", "q90"))


def still_dimensions(statistics: Statistics) -> dict[str, list[int]]:
    """Return, by feature, the numbers that move less than the floor.

    Args:
        statistics: As LeRobot datasets carry them; those of cameras, and features without minimum and maximum, are left out.
    """
    found = {}
    for key, values in statistics.items():
        span = _span(values)
        if span is not None and (still := (span < _floor(span)).nonzero()[:, 0].tolist()):
            found[key] = still
    return found


def with_floor(statistics: Statistics) -> dict[str, dict[str, Tensor]]:
    """Return statistics in which no deviation or range is below the floor; others are as they were."""
    guarded = {
        key: {name: torch.as_tensor(value) for name, value in values.items()} for key, values in statistics.items()
    }
    for key, still in still_dimensions(statistics).items():
        values, span = guarded[key], _span(statistics[key])
        assert span is not None
        floor = float(_floor(span))
        if "std" in values:
            values["std"] = values["std"].clone()
            values["std"][still] = values["std"][still].clamp_min(floor)
        for low, high in _ENDS:
            if low in values and high in values:
                values[low], values[high] = values[low].clone(), values[high].clone()
                centre = (values[low][still] + values[high][still]) / 2
                values[low][still], values[high][still] = centre - floor, centre + floor
    return guarded


def _span(values: Mapping[str, Any]) -> Tensor | None:
    if "min" not in values or "max" not in values:
        return None
    low, high = (torch.as_tensor(values[end]).double() for end in ("min", "max"))
    return high - low if low.ndim == 1 and len(low) else None


def _floor(span: Tensor) -> Tensor:
    largest = span.max()
    return torch.where(largest > 0, FLOOR_SHARE * largest, torch.full_like(largest, FLOOR))
