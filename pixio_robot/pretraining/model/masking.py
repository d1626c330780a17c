"""Which patches the encoder does not see: random blocks on a fixed grid (arXiv 2512.15715, §3).

Shape letters: B images, N patches, V visible patches, M masked patches.
"""

import torch
from torch import Tensor

from pixio_robot.common.errors import UserError


def block_mask(
    batch_size: int, grid: tuple[int, int], ratio: float, block: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draw one block mask per image; every image gets the same number of masked blocks.

    Args:
        batch_size: Number of masks.
        grid: Patches along height and width.
        ratio: Fraction of blocks to mask, in [0, 1).
        block: Side of a block in patches; blocks lie on a fixed grid that starts at the top left patch.
        generator: Source of randomness; the mask lives on its device.

    Returns:
        mask_BN: bool, True where a patch is masked, row-major over the patch grid.

    Raises:
        UserError: The block grid does not divide the patch grid, or no block would stay visible.
    """
    height, width = grid
    if height % block or width % block:
        raise UserError(
            f"Mask blocks of {block}x{block} patches do not divide the grid of {height}x{width} patches: "
            "choose a mask block that divides both sides, or another image size."
        )
    rows, columns = height // block, width // block
    blocks = rows * columns
    masked = round(ratio * blocks)
    if not 0 <= masked < blocks:
        raise UserError(
            f"A mask ratio of {ratio} on {blocks} blocks leaves no block visible (or is negative): "
            "choose a ratio in [0, 1) with a smaller mask block or a larger image."
        )
    device = generator.device if generator is not None else None
    order = torch.rand(batch_size, blocks, generator=generator, device=device).argsort(dim=1)
    mask = (order < masked).view(batch_size, rows, 1, columns, 1)
    return mask.expand(-1, -1, block, -1, block).reshape(batch_size, height * width)


def split_patches(mask_BN: Tensor) -> tuple[Tensor, Tensor]:
    """Turn masks into the indices of visible (B, V) and masked (B, M) patches, each in ascending order.

    Args:
        mask_BN: Masks with equally many masked patches in every row.
    """
    # A stable sort keeps each part ascending and, unlike nonzero(), needs no synchronisation on a GPU.
    order_BN = mask_BN.to(torch.uint8).argsort(dim=1, stable=True)
    visible = mask_BN.shape[1] - int(mask_BN[0].sum())
    return order_BN[:, :visible], order_BN[:, visible:]
