"""Augmented copies of frames: small shifts, other light and surfaces, the same whenever they are asked for."""

import torch
from pytest import mark
from torch.nn import functional

from pixio_robot.training.data.augmentation import augment


def test_shifts_repeat_the_border_and_stay_small() -> None:
    """Of two ramps under the same change, the difference is a ramp again: the pattern over both cancels out."""
    ramp = torch.linspace(0.3, 0.5, 84).expand(3, 84, 84)
    patterned = range(1, 80, 2)
    changed, mirrored = (augment(of.repeat(40, 1, 1, 1), patterned, [0] * 40, 1, "a") for of in (ramp, ramp.flip(2)))
    both = torch.stack([changed, mirrored])
    inside = (both.amin(dim=(0, 2, 3, 4)) > 0) & (both.amax(dim=(0, 2, 3, 4)) < 1)  # nothing is cut off
    flat = ((changed - mirrored)[inside][:, 0, 0].diff(dim=1).abs() < 1e-6).sum(dim=1)
    assert len(flat) > 10
    assert 0 < flat.max() <= 4
    assert len(flat.unique()) >= 4
    assert changed.mean(dim=(1, 2, 3)).std() > 0.05
    assert torch.equal(augment(ramp[None], [15], [0], 1, "a")[0], changed[7])


@mark.parametrize("copy", [1, 2])
def test_changes_fade_along_an_episode_and_differ_between_episodes_and_copies(copy: int) -> None:
    generator = torch.Generator().manual_seed(0)
    image = functional.interpolate(torch.rand(1, 3, 8, 8, generator=generator), (84, 84), mode="bilinear")
    steps = list(range(17))
    changed = augment(image.repeat(17, 1, 1, 1), [3] * 17, steps, copy, "a")
    apart = (changed[1:] - changed[:-1]).abs().mean(dim=(1, 2, 3))
    far = (changed[[0, 0, 8]] - changed[[8, 16, 16]]).abs().mean()
    assert far > 0.05
    assert apart.max() < 0.7 * far  # a ninth of the way, and a shift by a pixel
    for episode, stream, other_copy in ((4, "a", copy), (3, "b", copy), (3, "a", copy + 2)):
        other = augment(image, [episode], [0], other_copy, stream)
        assert (other - changed[0]).abs().mean() > 0.02
    assert (changed - image).abs().mean() > 0.05
    assert changed.min() >= 0 and changed.max() <= 1


@mark.parametrize("copy", [1, 2])
def test_convolutions_and_patterns_take_turns_over_episodes_and_copies(copy: int) -> None:
    """A grey frame has no edges that a convolution could change; patterns show on it."""
    changed = augment(torch.full((8, 3, 84, 84), 0.4), range(8), [0] * 8, copy, "a").std(dim=(2, 3)).amax(dim=1)
    convolved, overlaid = changed[copy - 1 :: 2], changed[copy % 2 :: 2]
    assert len(convolved) == len(overlaid) == 4
    assert convolved.max() < 1e-3
    assert overlaid.max() > 0.02
