"""Neighbours vote as the protocol says, on a user's images and on scenes."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from toy_simulator import FAMILIES, toy_simulator

from pixio_robot.common.errors import UserError
from pixio_robot.common.statistics import wilson_interval
from pixio_robot.downstream.neighbours.config import NeighboursProtocol
from pixio_robot.downstream.neighbours.task import neighbours_task
from pixio_robot.downstream.task import build_encoder
from pixio_robot.encoders import EncoderConfig
from pixio_robot.encoders.probing.neighbours import image_features, vote

CONSOLE, PIXELS = Console(quiet=True), EncoderConfig("pixels")
SMALL = NeighboursProtocol(
    neighbours=(1, 3), resize=32, crop=32, families=FAMILIES, scenes=6, test_scenes=4, scene_size=32
)


def test_votes_are_those_of_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    known, tested = (
        torch.nn.functional.normalize(torch.randn(count, 8, generator=generator), dim=1) for count in (90, 40)
    )
    labels = torch.randint(4, (90,), generator=generator)
    told = vote(known, labels, tested, [5, 20], 4, 0.07)
    for k in (5, 20):
        for number, image in enumerate(tested.numpy()):
            similarities = known.numpy() @ image
            votes = np.zeros(4)
            for neighbour in np.argsort(-similarities)[:k]:
                votes[labels[neighbour]] += math.exp(similarities[neighbour] / 0.07)
            assert told[k][number] == votes.argmax()
    assert vote(known, labels, tested, [500], 4, 0.07)[500].shape == (40,)  # more than there are: all vote


def test_features_are_class_tokens_before_the_norm() -> None:
    encoder = build_encoder(EncoderConfig("pixio_tiny16", "random"))
    images = torch.rand(2, 3, 32, 32)
    kept: list[torch.Tensor] = []
    hook = encoder.backbone.norm.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    encoder(images)
    hook.remove()
    mean = kept[0][:, :8].mean(dim=1)
    torch.testing.assert_close(image_features(encoder, images), mean / mean.norm(dim=1, keepdim=True))
    convolutions = build_encoder(EncoderConfig("resnet18", "random"))
    expected = torch.nn.functional.normalize(convolutions(images).global_tokens[:, 0], dim=1)
    torch.testing.assert_close(image_features(convolutions, images), expected)


def folder_of_images(root: Path, test: str = "val") -> Path:
    for part, count in (("train", 4), (test, 2)):
        for name, value in (("cats", 230), ("dogs", 30)):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.full((40, 60, 3), value, np.uint8)
                pixels[:, :10] = number  # cropped away
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


def test_a_users_images_are_told_apart(tmp_path: Path) -> None:
    task = neighbours_task(SMALL, folder_of_images(tmp_path / "pets"), toy_simulator(), tmp_path)
    assert task.name == "neighbours-pets"
    random = task.measure(EncoderConfig("pixio_tiny16", "random"), tmp_path, CONSOLE)
    assert random.metrics["best"] == [1.0]
    guess = task.measure("guess", tmp_path, CONSOLE)
    assert guess.metrics["best"] == [0.5]
    assert guess.intervals["best"] == wilson_interval(2, 4)


def test_without_images_the_families_of_scenes_are_the_classes(tmp_path: Path) -> None:
    task = neighbours_task(SMALL, None, toy_simulator(), tmp_path)
    assert task.measure(PIXELS, tmp_path, CONSOLE).metrics["k3"] == [1.0]
    assert math.isclose(task.measure("guess", tmp_path, CONSOLE).metrics["best"][0], 0.5)


def test_a_folder_that_is_not_as_expected_is_said(tmp_path: Path) -> None:
    for root, said in (
        (tmp_path / "lost", "there is no such folder"),
        (tmp_path, "there is pets"),
    ):
        folder_of_images(tmp_path / "pets") if root == tmp_path else None
        with pytest.raises(UserError, match=said):
            neighbours_task(SMALL, root, toy_simulator(), tmp_path)
    pets = tmp_path / "pets"
    (pets / "val" / "dogs").rename(pets / "val" / "hounds")
    with pytest.raises(UserError, match="'dogs' is in one of them alone"):
        neighbours_task(SMALL, pets, toy_simulator(), tmp_path)
    (pets / "val" / "hounds").rename(pets / "val" / "dogs")
    (pets / "train" / "cats" / "0.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"cats/0.png cannot be read"):
        neighbours_task(SMALL, pets, toy_simulator(), tmp_path).measure(PIXELS, tmp_path, CONSOLE)
    with pytest.raises(UserError, match="crop=64 is larger"):
        neighbours_task(NeighboursProtocol(resize=32, crop=64), pets, toy_simulator(), tmp_path)
