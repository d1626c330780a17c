"""Images as sequences of patches, and back.

Shape letters: B images, C channels, H and W pixels, P patch side, N patches, K chosen patches, X = C·P·P values of a patch.
"""

import torch
from torch import Tensor

_EPSILON = 1e-6  # of arXiv 2512.15715's target (x - mean) / sqrt(var + 1e-6)


def patchify(images_BCHW: Tensor, patch: int) -> Tensor:
    """Cut images into patches (B, N, C·P·P); a patch is laid out like the weights of timm's patch embedding."""
    batch, channels, height, width = images_BCHW.shape
    grid = images_BCHW.view(batch, channels, height // patch, patch, width // patch, patch)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * patch * patch)


def unpatchify(patches_BNX: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """Invert `patchify` for a grid of (rows, columns) patches: (B, N, C·P·P) → (B, C, H, W)."""
    batch, _, values = patches_BNX.shape
    channels = values // (patch * patch)
    grid_patches = patches_BNX.view(batch, *grid, channels, patch, patch)
    return grid_patches.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, grid[0] * patch, grid[1] * patch)


def patch_statistics(patches_BNX: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (B, N, 1) of each patch, √(unbiased variance + 1e-6), as MAE's targets are normalised."""
    variance, mean = torch.var_mean(patches_BNX, dim=-1, keepdim=True, correction=1)
    return mean, (variance + _EPSILON).sqrt()


def take_patches(values_BNX: Tensor, index_BK: Tensor) -> Tensor:
    """Pick patches by index: (B, N, X), (B, K) → (B, K, X)."""
    return values_BNX.gather(1, index_BK[..., None].expand(-1, -1, values_BNX.shape[-1]))
