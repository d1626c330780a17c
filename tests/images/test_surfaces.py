"""Other surfaces on a scene: random convolutions and patterns."""

import torch

from pixio_robot.images.surfaces import Disguise, change_surfaces, convolve, draw_surfaces


def test_no_weight_no_change_and_full_weights_leave_nothing() -> None:
    images = torch.rand(4, 3, 24, 32)
    changes = draw_surfaces(4, (24, 32), Disguise(probability=0.0), torch.Generator().manual_seed(0))
    assert torch.equal(change_surfaces(images, changes), images)
    settings = Disguise(probability=1.0, convolution=(0.0, 0.0), overlay=(1.0, 1.0))
    changes = draw_surfaces(4, (24, 32), settings, torch.Generator().manual_seed(0))
    assert torch.equal(change_surfaces(images, changes), changes.pattern_BCHW)


def test_each_image_has_its_own_convolution_and_keeps_brightness_and_contrast() -> None:
    images = torch.rand(3, 3, 16, 16)
    kernels = draw_surfaces(3, (16, 16), Disguise(), torch.Generator().manual_seed(1)).kernel_B33KK
    convolved = convolve(images, kernels)
    for index in range(3):
        torch.testing.assert_close(convolve(images[index : index + 1], kernels[index : index + 1])[0], convolved[index])
    torch.testing.assert_close(convolved.mean(dim=(1, 2, 3)), images.mean(dim=(1, 2, 3)), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(convolved.std(dim=(1, 2, 3)), images.std(dim=(1, 2, 3)), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(convolved, images, atol=0.1)
