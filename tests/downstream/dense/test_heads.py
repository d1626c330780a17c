"""Heads have the published shapes and sizes."""

import pytest
import torch
from torch.nn import functional

from pixio_robot.downstream.dense.heads import DepthOutput, DPTHead, LinearHead, upsample

PAPER = (256, 512, 1024, 1024)


def convolution(inputs: int, outputs: int, side: int, bias: bool = True) -> int:
    return inputs * outputs * side**2 + bias * outputs


def test_dpt_has_the_size_that_its_layers_add_up_to() -> None:
    width, channels, outputs = 256, 384, 1
    count = sum(convolution(channels, level, 1) for level in PAPER)  # to the levels' widths
    count += convolution(256, 256, 4) + convolution(512, 512, 2) + convolution(1024, 1024, 3)  # ×4, ×2, ×½
    count += sum(convolution(level, width, 3, bias=False) for level in PAPER)  # to the width of the fusion
    count += 4 * (4 * convolution(width, width, 3) + convolution(width, width, 1))  # two units of two, and what follows
    count += convolution(width, width, 3) + convolution(width, outputs, 1)
    with torch.device("meta"):
        head = DPTHead([channels] * 4, outputs, width, PAPER)
    assert sum(value.numel() for value in head.parameters()) == count
    assert round(count / 1e6, 1) == 29.4  # as the public head on the 384 channels of pixio_tiny
    idle = sum(value.numel() for value in head.parameters() if not value.requires_grad)
    assert idle == 2 * convolution(width, width, 3)  # held and never run, as there


@pytest.mark.parametrize("grid", [(8, 8), (5, 7)])
def test_dpt_brings_levels_to_their_grids_and_fuses_all_of_them(grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    head = DPTHead([6] * 4, 3, 8, (4, 5, 6, 7))
    shapes = []
    for fusion in head.fuse:
        fusion.register_forward_hook(
            lambda module, inputs, output: shapes.append((inputs[0].shape[1:], output.shape[2:]))
        )
    levels = [torch.randn(2, 6, *grid, requires_grad=True) for _ in range(4)]
    size = (16 * grid[0], 16 * grid[1])
    scores = head(levels, size)
    assert scores.shape == (2, 3, *size)
    (height, width), half = grid, tuple((side + 1) // 2 for side in grid)
    grids = [half, grid, (2 * height, 2 * width), (4 * height, 4 * width)]
    assert [tuple(shape[0]) for shape in shapes] == [(8, *of) for of in grids]
    assert [tuple(shape[1]) for shape in shapes] == [*grids[1:], (8 * height, 8 * width)]
    scores.sum().backward()
    assert all(level.grad is not None and level.grad.abs().sum() > 0 for level in levels)
    trained = [value for value in head.parameters() if value.requires_grad]
    assert all(value.grad is not None for value in trained)


def test_a_pyramid_is_taken_on_the_grids_that_it_has() -> None:
    head = DPTHead([4, 6, 8, 10], 2, 8, (4, 5, 6, 7), pyramid=True)
    levels = [torch.randn(1, channels, side, side) for channels, side in ((4, 32), (6, 16), (8, 8), (10, 4))]
    assert head(levels, (128, 128)).shape == (1, 2, 128, 128)
    assert not any("resample" in name for name, _ in head.named_parameters())


def test_linear_reads_the_last_level_alone() -> None:
    torch.manual_seed(0)
    head = LinearHead([5, 4], 3).eval()
    with torch.no_grad():
        head.norm.running_mean.normal_()
        head.norm.running_var.uniform_(0.5, 2)
    levels = [torch.full((2, 5, 3, 3), torch.nan), torch.randn(2, 4, 3, 5)]
    normal = (levels[1] - head.norm.running_mean[:, None, None]) / (head.norm.running_var + 1e-5).sqrt()[:, None, None]
    maps = torch.einsum("kc,bchw->bkhw", head.project.weight[:, :, 0, 0], normal) + head.project.bias[:, None, None]
    got = head(levels, (33, 65))
    torch.testing.assert_close(got, functional.interpolate(maps, (33, 65), mode="bilinear", align_corners=True))
    torch.testing.assert_close(got[..., ::16, ::16], maps)  # corners on corners


def test_depth_is_a_share_of_the_largest() -> None:
    class Constant(torch.nn.Module):
        def forward(self, levels: list[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
            return upsample(levels[-1], size)

    logits = torch.tensor([[[[-100.0, 0.0], [1.0, 100.0]]]])
    metres = DepthOutput(Constant(), 80.0)([logits.bfloat16()], (2, 2))
    assert metres.dtype == torch.float32
    torch.testing.assert_close(metres, 80 / (1 + (-logits).exp()))
