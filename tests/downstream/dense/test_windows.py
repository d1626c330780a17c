"""Windows cover an image, and what they give is averaged."""

import pytest
import torch

from pixio_robot.downstream.dense.windows import cut_windows, join_windows, window_starts

COLOUR = torch.tensor([0.5, 0.4, 0.3])


@pytest.mark.parametrize(
    ("length", "starts"), [(256, [0]), (100, [0]), (426, [0, 170]), (427, [0, 170, 340]), (560, [0, 170, 340])]
)
def test_windows_begin_at_strides_until_the_end_is_covered(length: int, starts: list[int]) -> None:
    assert window_starts(length, 256, 170) == starts


def test_an_image_of_one_window_is_one_pass() -> None:
    image = torch.rand(3, 32, 32)
    windows = cut_windows(image, 32, 21, COLOUR)
    assert torch.equal(windows, image[None])
    prediction = torch.rand(1, 5, 32, 32)
    assert torch.equal(join_windows(prediction, (32, 32), 21), prediction[0])


def test_overlaps_are_averaged_and_what_lies_beyond_is_cut_off() -> None:
    image = torch.rand(3, 40, 70)
    windows = cut_windows(image, 32, 21, COLOUR)
    tops, lefts = [0, 21], [0, 21, 42]
    assert len(windows) == 6
    assert torch.equal(windows[4], torch.nn.functional.pad(image, (0, 0, 0, 13))[:, 21:, 21:53] + _beyond(13, COLOUR))
    total, count = torch.zeros(2, 53, 74), torch.zeros(1, 53, 74)
    values = torch.rand(6, 2, 32, 32)
    for number, (top, left) in enumerate((top, left) for top in tops for left in lefts):
        total[:, top : top + 32, left : left + 32] += values[number]
        count[:, top : top + 32, left : left + 32] += 1
    torch.testing.assert_close(join_windows(values, (40, 70), 21), (total / count)[:, :40, :70])


def _beyond(rows: int, colour: torch.Tensor) -> torch.Tensor:
    painted = torch.zeros(3, 32, 32)
    painted[:, 32 - rows :] = colour[:, None, None]
    return painted


def test_pixels_that_know_their_place_come_back_in_their_place() -> None:
    image = torch.rand(3, 45, 60)
    windows = cut_windows(image, 32, 21, COLOUR)
    torch.testing.assert_close(join_windows(windows, (45, 60), 21), image)
