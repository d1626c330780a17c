"""Raw pixels in the place of an encoder: the row of a comparison that says what encoding is worth.

Shape letters: B batch, N patches, D values of a patch, H and W image size, h and w patch grid.
"""

from collections.abc import Sequence
from typing import Any

from timm.models import register_model
from torch import Tensor, nn

from pixio_robot.images.patches import patchify

PIXELS = "pixels"
"""The encoder name that stands for raw pixels."""
_PATCH = 16


class RawPixels(nn.Module):
    """A timm model without parameters: its tokens are the values in [0, 1] of patches of 16 px."""

    num_prefix_tokens = 0
    num_features = 3 * _PATCH**2

    def __init__(self) -> None:
        """Look like a transformer of a few blocks that all pass on their input."""
        super().__init__()
        self.feature_info = [{"num_chs": self.num_features, "reduction": _PATCH, "module": ""}] * 4
        self.pretrained_cfg = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "license": "", "num_classes": 0}

    def forward_features(self, images_BCHW: Tensor) -> Tensor:
        """Return the patches (B, N, D), row-major."""
        return patchify(images_BCHW, _PATCH)

    def forward_intermediates(
        self,
        images_BCHW: Tensor,
        indices: Sequence[int],
        norm: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = True,
    ) -> list[Tensor]:
        """Return the patches (B, D, h, w) once for each index, as timm's models return the outputs of their blocks."""
        del norm, output_fmt, intermediates_only
        grid = [side // _PATCH for side in images_BCHW.shape[-2:]]
        return [self.forward_features(images_BCHW).transpose(1, 2).unflatten(2, grid)] * len(indices)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the mean patch (B, D)."""
        return self.forward_features(images_BCHW).mean(dim=1)


@register_model
def pixels(pretrained: bool = False, **kwargs: Any) -> RawPixels:  # noqa: ANN401 (timm's signature)
    """No encoder at all."""
    del pretrained, kwargs
    return RawPixels()
