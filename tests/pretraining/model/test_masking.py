"""Block masks: exact count, block structure, independence between images."""

import pytest
import torch

from pixio_robot.common.errors import UserError
from pixio_robot.pretraining.model.masking import block_mask, split_patches


@pytest.mark.parametrize(("grid", "block", "visible_blocks"), [((16, 16), 4, 4), ((8, 8), 2, 4), ((4, 8), 1, 8)])
def test_every_image_hides_exactly_three_quarters_in_whole_blocks(
    grid: tuple[int, int], block: int, visible_blocks: int
) -> None:
    mask = block_mask(200, grid, 0.75, block, torch.Generator().manual_seed(0)).view(200, *grid)
    assert ((~mask).sum(dim=(1, 2)) == visible_blocks * block**2).all()
    for row in range(0, grid[0], block):
        for column in range(0, grid[1], block):
            cell = mask[:, row : row + block, column : column + block].flatten(1)
            assert (cell == cell[:, :1]).all()
    frequency = mask.float().mean(dim=0)
    assert (frequency - 0.75).abs().max() < 0.15  # every block is hidden in some images and seen in others
    assert len({tuple(image.flatten().tolist()) for image in mask}) > 100


def test_the_generator_decides() -> None:
    first, again, other = (block_mask(4, (8, 8), 0.75, 2, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_split_gives_ascending_indices_of_both_parts() -> None:
    mask = torch.tensor([[True, False, True, False], [False, False, True, True]])
    visible, masked = split_patches(mask)
    assert visible.tolist() == [[1, 3], [0, 1]]
    assert masked.tolist() == [[0, 2], [2, 3]]


def test_blocks_that_do_not_divide_the_grid_are_refused() -> None:
    with pytest.raises(UserError, match="4x4 patches do not divide the grid of 8x14"):
        block_mask(1, (8, 14), 0.75, 4)


def test_hiding_everything_is_refused() -> None:
    with pytest.raises(UserError, match="no block visible"):
        block_mask(1, (4, 4), 0.75, 4)
