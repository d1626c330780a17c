"""Boxes resized together are those that torch resizes one by one."""

import pytest
import torch
from torch.nn import functional

from pixio_robot.images.augment import crop_and_resize, random_crops
from pixio_robot.images.config import Filter
from pixio_robot.images.resampling import crop_together


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [16, 96])  # most boxes shrink, most grow
def test_boxes_resized_together_are_those_of_torch(kind: Filter, size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    frames_BHWC = torch.randint(0, 256, (300, 40, 56, 3), dtype=torch.uint8, generator=generator)
    sides_B2 = torch.tensor([[40, 56]]).expand(300, 2)
    boxes_B4 = random_crops(torch.ones(300), sides_B2, (0.05, 1.0), (0.75, 1.333), generator)
    together = crop_together(frames_BHWC, boxes_B4, size, kind)
    for index in range(0, 300, 60):
        top, left, height, width = boxes_B4[index].tolist()
        box = frames_BHWC[index, top : top + height, left : left + width].permute(2, 0, 1)[None].float()
        exact = functional.interpolate(box, (size, size), mode=kind, antialias=True)[0]
        apart = (together[index] - exact.clamp(0, 255)).abs()
        assert apart.max() < 0.5 + 1e-3  # rounded to the nearest level
    in_turn = crop_and_resize(frames_BHWC, boxes_B4, size, kind)
    differences = (in_turn.int() - together.int()).abs()
    assert differences.float().mean() < 0.3
    if kind == "bilinear":  # between its passes torch clips what a bicubic filter overshoots
        assert differences.max() <= 1
