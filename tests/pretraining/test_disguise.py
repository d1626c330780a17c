"""Disguised images: what the encoder sees has other surfaces and light, what it is asked for has not."""

import dataclasses
from pathlib import Path

import pytest
import torch
from tiny_run import TINY
from torch import Tensor, nn

from pixio_robot.images.surfaces import Disguise, change_surfaces, convolve, draw_surfaces
from pixio_robot.pretraining.config import PretrainConfig, pretrain_config
from pixio_robot.pretraining.objectives.reconstruction import Reconstruction
from pixio_robot.pretraining.sources import ImageCache
from pixio_robot.pretraining.trainer import train


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


class Watched(Reconstruction):
    """Keeps what the trainer gives the objective."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__(config)
        self.given: list[tuple[Tensor, Tensor]] = []

    def loss(self, module: nn.Module, seen_BCHW: Tensor, asked_BCHW: Tensor, mask_BN: Tensor) -> Tensor:
        self.given.append((seen_BCHW, asked_BCHW))
        return super().loss(module, seen_BCHW, asked_BCHW, mask_BN)


def given(source: ImageCache, folder: Path, **settings: object) -> list[tuple[Tensor, Tensor]]:
    made: list[Watched] = []

    def objective(config: PretrainConfig) -> Watched:
        made.append(Watched(config))
        return made[-1]

    train(dataclasses.replace(TINY, steps=1, accumulation=1, **settings), objective, source, folder)
    return made[0].given


def test_the_encoder_is_asked_for_the_image_as_it_was(source: ImageCache, tmp_path: Path) -> None:
    ((plain, plain_asked),) = given(source, tmp_path / "plain", photometric=None)
    assert plain_asked is plain
    ((seen, asked),) = given(source, tmp_path / "disguised", disguise=Disguise(probability=1.0))
    assert torch.equal(asked, plain)  # light is changed in what is seen alone, too
    assert not torch.allclose(seen, plain, atol=0.1)


def test_the_loss_compares_with_what_was_asked_for() -> None:
    objective = Reconstruction(TINY)
    seen, asked = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    mask = torch.tensor([[True, False, False, True]] * 2)
    expected = objective.module(seen.sub(0.5), mask_BN=mask)  # only the prediction is used
    output = objective.module(seen.sub(0.5), mask_BN=mask, asked_BCHW=asked)
    assert torch.equal(output.prediction_BMX, expected.prediction_BMX)
    patches = asked.unfold(2, 16, 16).unfold(3, 16, 16).reshape(2, 3, 4, 256).transpose(1, 2).flatten(2)[:, [0, 3]]
    normalised = (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6).sqrt()
    assert output.loss.item() == pytest.approx((output.prediction_BMX - normalised).square().mean().item(), rel=1e-4)


def test_settings_are_read_from_plain_values() -> None:
    values = {"variant": "pixio_tiny16", "steps": 1, "lr": 1e-3, "disguise": {"overlay": [0.1, 0.2]}}
    config = pretrain_config(values)
    assert config.disguise == Disguise(overlay=(0.1, 0.2))
