"""A user's own encoder as a TorchScript file, in the place of a timm backbone.

Shape letters: B batch, N tokens (global first), G global tokens, C and D width, h and w patch grid.
"""

import contextlib
import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pixio_robot.common.errors import UserError
from pixio_robot.common.storage.torch_files import check_undamaged, open_torchscript

TORCHSCRIPT = "torchscript"
"""The encoder name that stands for a TorchScript file."""
_MOST_GLOBAL_TOKENS = 32
# Tried in turn to learn the width of a file that was traced for one size of image.
_COMMON_SIZES = (128, 96, 256, 64, 84, 192, 384, 512, 224)


class TorchScriptBackbone(nn.Module):
    """A TorchScript encoder: images float32 (B, 3, H, W), RGB in [0, 1] → tokens (B, N, D) or a map (B, C, h, w).

    Normalisation belongs into the file. Of tokens, the last h·w are the patches, row-major, for the finest grid of
    square patches that N allows; those before them are global tokens.
    """

    def __init__(self, path: Path, image_size: int | None) -> None:
        """Load the file and run it once.

        Args:
            path: The file that `torch.jit.save` wrote.
            image_size: Side of the images in pixels; None tries common sizes until the cameras' size is known.

        Raises:
            UserError: The file is missing, damaged, is no TorchScript or more than arithmetic, or gives neither tokens nor a map.
        """
        super().__init__()
        if not path.is_file():
            raise UserError(f"No TorchScript encoder at {path}: give encoder.weights=<file written by torch.jit.save>.")
        check_undamaged(path)
        self.module: Any = open_torchscript(path).eval()
        self.path = path
        self.pretrained_cfg = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
        # The code counts as much as the parameters: through this buffer weights_hash covers both.
        digest = bytearray(hashlib.sha256(path.read_bytes()).digest())
        self.register_buffer("file_digest", torch.frombuffer(digest, dtype=torch.uint8))
        self._layouts: dict[tuple[int, int], tuple[int, int, int, int]] = {}
        self._global_tokens, _, _, self.num_features = self._first_layout(image_size)

    def _first_layout(self, image_size: int | None) -> tuple[int, int, int, int]:
        if image_size is not None:
            return self._layout(image_size, image_size)
        for size in _COMMON_SIZES[:-1]:
            with contextlib.suppress(UserError):
                return self._layout(size, size)
        return self._layout(_COMMON_SIZES[-1], _COMMON_SIZES[-1])

    @property
    def num_prefix_tokens(self) -> int:
        """Number G of tokens before the patches; 0 for maps."""
        return self._global_tokens

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the patch grid (h, w) for images of the given size in pixels.

        Raises:
            UserError: The file does not run on this size.
        """
        return self._layout(height, width)[1:3]

    def forward_features(self, images_BCHW: Tensor) -> Tensor:
        """Return what the file returns."""
        return self.module(images_BCHW)

    @torch.no_grad()
    def _layout(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Run the file on images of one size and return (G, h, w, D)."""
        if (height, width) not in self._layouts:
            device = self.get_buffer("file_digest").device
            try:
                output: Any = self.module(torch.zeros(2, 3, height, width, device=device))
            except Exception as error:  # whatever the file's code raises
                raise UserError(
                    f"{self.path} does not run on images (B, 3, {height}, {width}) "
                    f"({str(error).strip().splitlines()[-1][:120]}); set encoder.image_size to the size it was made for."
                ) from error
            self._layouts[height, width] = self._read_layout(output, height, width)
        return self._layouts[height, width]

    def _read_layout(self, output: object, height: int, width: int) -> tuple[int, int, int, int]:
        shape = tuple(output.shape) if isinstance(output, Tensor) else None
        if shape is not None and shape[0] == 2 and output.is_floating_point():  # type: ignore[union-attr]
            if len(shape) == 4:
                return 0, shape[2], shape[3], shape[1]
            grid = finest_grid(shape[1], height, width) if len(shape) == 3 else None
            if grid is not None:
                return shape[1] - grid[0] * grid[1], *grid, shape[2]
        found = f"shape {shape}" if shape is not None else f"a {type(output).__name__}"
        raise UserError(
            f"{self.path} gives {found} for images (2, 3, {height}, {width}); expected floating-point tokens (B, N, D) "
            f"with one token for each square patch, or a map (B, C, h, w)."
        )


def finest_grid(tokens: int, height: int, width: int) -> tuple[int, int] | None:
    """Return the largest grid of square patches with at most so many cells, if few tokens are left over."""
    for patch in range(1, min(height, width) + 1):
        h, w = height // patch, width // patch
        if height % patch == 0 and width % patch == 0 and h * w <= tokens:
            return (h, w) if tokens - h * w <= _MOST_GLOBAL_TOKENS else None
    return None
