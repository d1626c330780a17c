"""Tokens from inside of a timm backbone: of evenly spaced blocks, or of the stages of a pyramid.

Shape letters: B batch, P prefix tokens, D width (of a stage), H and W image size, h and w patch-grid size.
"""

import inspect
import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from pixio_robot.common.errors import UserError


def evenly_spaced(depth: int, count: int) -> list[int]:
    """Return the indices of `count` blocks at even distances among `depth`, the last block always among them.

    Of 12 blocks four are 2, 5, 8 and 11, as in arXiv 2512.15715's dense tasks.
    """
    return [math.ceil(depth * (number + 1) / count) - 1 for number in range(count)]


def stages(backbone: Any, count: int, name: str) -> tuple[list[int], list[int]]:  # noqa: ANN401 (timm's models share no type)
    """Choose what `intermediate_tokens` returns: evenly spaced blocks where all have one grid, else a pyramid's last stages.

    Args:
        backbone: A timm model.
        count: How many.
        name: The encoder's name, for messages.

    Returns:
        Their indices, and by how much each is smaller than the image.

    Raises:
        UserError: The backbone keeps what is inside of it to itself, or has fewer.
    """
    info = getattr(backbone, "feature_info", None)
    if info is None or not hasattr(backbone, "forward_intermediates"):
        raise UserError(
            f"{name} gives its output alone, and no intermediate features: choose a head that reads the last block "
            f"(linear), or a timm model."
        )
    reductions = [int(entry["reduction"]) for entry in info]
    if not 1 <= count <= len(reductions):
        raise UserError(
            f"{name} has {len(reductions)} blocks or stages, and {count} intermediate features were asked for."
        )
    is_pyramid = len(set(reductions)) > 1
    total = len(reductions)
    indices = list(range(total - count, total)) if is_pyramid else evenly_spaced(total, count)
    return indices, [reductions[index] for index in indices]


def intermediate_tokens(
    backbone: Any,  # noqa: ANN401
    images_BCHW: Tensor,
    indices: Sequence[int],
    norm: bool = True,
) -> list[tuple[Tensor | None, Tensor]]:
    """Run a timm backbone once and return what is inside.

    Args:
        backbone: A timm model.
        images_BCHW: Normalised images.
        indices: Of blocks or stages, increasing.
        norm: Whether those of a transformer go through its final norm.

    Returns:
        Per index the prefix tokens (B, P, D), None where there are none, and the grid of patch tokens (B, h, w, D).
    """
    parameters = inspect.signature(backbone.forward_intermediates).parameters
    has_prefix = "return_prefix_tokens" in parameters and bool(getattr(backbone, "num_prefix_tokens", 0))
    arguments = {"return_prefix_tokens": True} if has_prefix else {}
    found = backbone.forward_intermediates(
        images_BCHW, indices=list(indices), norm=norm, output_fmt="NCHW", intermediates_only=True, **arguments
    )
    pairs = found if has_prefix else [(grid_BDhw, None) for grid_BDhw in found]
    return [(prefix_BPD, grid_BDhw.permute(0, 2, 3, 1)) for grid_BDhw, prefix_BPD in pairs]
