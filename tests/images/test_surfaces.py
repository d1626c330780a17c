"""Other surfaces on a scene: random convolutions and patterns."""

import torch

from pixio_robot.images.surfaces import KERNEL_SIDES, convolve, draw_kernel, draw_pattern


def test_the_kernel_that_changes_nothing_changes_nothing() -> None:
    images = torch.rand(4, 1, 24, 32).expand(-1, 3, -1, -1)
    centre = torch.zeros(4, 3, 3, 5, 5)
    centre[:, range(3), range(3), 2, 2] = 1.0
    torch.testing.assert_close(convolve(images, centre), images, rtol=1e-4, atol=1e-5)


def test_each_image_has_its_own_convolution_and_keeps_brightness_and_contrast() -> None:
    images, generator = torch.rand(3, 3, 16, 16), torch.Generator().manual_seed(1)
    kernels = torch.cat([draw_kernel(KERNEL_SIDES, generator) for _ in range(3)])
    convolved = convolve(images, kernels)
    for index in range(3):
        torch.testing.assert_close(convolve(images[index : index + 1], kernels[index : index + 1])[0], convolved[index])
    torch.testing.assert_close(convolved.mean(dim=(1, 2, 3)), images.mean(dim=(1, 2, 3)), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(convolved.std(dim=(1, 2, 3)), images.std(dim=(1, 2, 3)), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(convolved, images, atol=0.1)


def test_patterns_fill_the_range_and_differ() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (draw_pattern((24, 32), generator) for _ in range(2))
    assert first.shape == (1, 3, 24, 32)
    assert (float(first.min()), float(first.max())) == (0.0, 1.0)
    assert not torch.allclose(first, second, atol=0.1)
