"""Crops and photometric changes against torchvision's."""

import dataclasses

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from pixio_robot.images.augment import Photometric, change_photometrically, crop_and_resize, draw_changes, random_crops
from pixio_robot.images.preprocessing import IMAGENET_MEAN, IMAGENET_STD, normalise

STILL = Photometric(
    probability=1.0,
    brightness=(1.0, 1.0),
    channel_gain=(1.0, 1.0),
    contrast=(1.0, 1.0),
    saturation=(1.0, 1.0),
    hue=0.0,
    grey=0.0,
)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("aspect", [1.0, 2.0, 0.5])
def test_crops_have_area_and_ratio_in_range_in_the_original_geometry(aspect: float) -> None:
    side = 1000
    boxes = random_crops(
        torch.full((3000,), aspect), torch.full((3000, 2), side), (0.2, 1.0), (3 / 4, 4 / 3), generator()
    )
    top, left, height, width = boxes.unbind(1)
    assert (boxes >= 0).all()
    assert (top + height <= side).all()
    assert (left + width <= side).all()
    area = height * width / side**2
    ratio = width / height * aspect
    assert area.min() >= 0.19
    assert area.max() <= 1.0
    assert ratio.min() > 0.74
    assert ratio.max() < 1.35
    assert area.min() < 0.22
    assert ratio.min() < 0.77
    assert ratio.max() > 1.3
    if aspect == 1.0:
        assert area.max() > 0.95
        assert area.mean().item() == pytest.approx(0.57, abs=0.03)
        assert (left + width / 2).float().mean().item() == pytest.approx(side / 2, rel=0.03)


def test_very_long_images_get_a_central_crop_of_an_allowed_ratio() -> None:
    boxes = random_crops(torch.tensor([20.0]), torch.tensor([[600, 600]]), (0.9, 1.0), (3 / 4, 4 / 3), generator())
    top, left, height, width = boxes[0].tolist()
    assert (top, height, width) == (0, 600, 40)
    assert left == 280


def test_crop_and_resize_equals_torchvision() -> None:
    frames = torch.randint(0, 256, (3, 80, 80, 3), dtype=torch.uint8, generator=generator())
    boxes = torch.tensor([[0, 0, 80, 80], [10, 20, 33, 57], [60, 5, 20, 20]])
    ours = crop_and_resize(frames, boxes, 48)
    for index, (top, left, height, width) in enumerate(boxes.tolist()):
        image = frames[index].permute(2, 0, 1)
        theirs = tv.resized_crop(image, top, left, height, width, [48, 48], antialias=True)
        assert (ours[index].int() - theirs.int()).abs().max() <= 1


def images() -> torch.Tensor:
    return torch.rand(4, 3, 16, 16, generator=generator()) * 0.4 + 0.3  # no change below may reach the clamp


@pytest.mark.parametrize("value", [0.6, 1.3])
def test_single_changes_equal_torchvision(value: float) -> None:
    both = (value, value)
    for name, function in (
        ("brightness", tv.adjust_brightness),
        ("contrast", tv.adjust_contrast),
        ("saturation", tv.adjust_saturation),
    ):
        settings = dataclasses.replace(STILL, **{name: both})
        ours = change_photometrically(images(), draw_changes(len(images()), settings, generator()))
        torch.testing.assert_close(ours, function(images(), value), atol=1e-3, rtol=1e-3)


def test_nothing_changes_when_all_is_still_or_never_applied() -> None:
    torch.testing.assert_close(
        change_photometrically(images(), draw_changes(len(images()), STILL, generator())), images()
    )
    never = dataclasses.replace(Photometric(), probability=0.0)
    torch.testing.assert_close(
        change_photometrically(images(), draw_changes(len(images()), never, generator())), images()
    )


def test_hue_turns_colour_and_keeps_luminance() -> None:
    turned = change_photometrically(
        images(), draw_changes(len(images()), dataclasses.replace(STILL, hue=0.1), generator())
    )
    assert (turned - images()).abs().max() > 0.02
    torch.testing.assert_close(tv.rgb_to_grayscale(turned), tv.rgb_to_grayscale(images()), atol=2e-3, rtol=1e-3)


def test_grey_removes_colour_and_gains_tint_it() -> None:
    grey = change_photometrically(
        images(), draw_changes(len(images()), dataclasses.replace(STILL, grey=1.0), generator())
    )
    torch.testing.assert_close(grey[:, 0], grey[:, 2])
    tinted = change_photometrically(
        images(), draw_changes(len(images()), dataclasses.replace(STILL, channel_gain=(0.7, 1.2)), generator())
    )
    gains = (tinted / images()).flatten(2)
    torch.testing.assert_close(gains, gains[..., :1].expand_as(gains))
    assert gains[..., 0].std() > 0.05


def test_normalise_uses_the_encoders_statistics() -> None:
    expected = tv.normalize(images(), list(IMAGENET_MEAN), list(IMAGENET_STD))
    torch.testing.assert_close(normalise(images()), expected)
