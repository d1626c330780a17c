"""What a run says of its encoder on the way: probes, and the card of its weights."""

import dataclasses
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_run import TINY

from pixio_robot.common.errors import UserError
from pixio_robot.encoders.exporting import export_weights
from pixio_robot.pretraining.probing import linear_accuracy
from pixio_robot.pretraining.sources import folder_images
from pixio_robot.pretraining.trainer import pretrain

CONFIG = dataclasses.replace(TINY, steps=5)


def write_labelled(folder: Path) -> Path:
    """Red and blue noise, which any encoder tells apart."""
    random = np.random.default_rng(0)
    for part, count in (("train", 10), ("test", 4)):
        for channel, name in ((0, "red"), (2, "blue")):
            (folder / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 60, (40, 48, 3), dtype=np.uint8)
                pixels[..., channel] += 180
                Image.fromarray(pixels).save(folder / part / name / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def run(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probed")
    torch.set_num_threads(1)
    probed = dataclasses.replace(CONFIG, probe_every=4, probe_images=str(write_labelled(folder / "labelled")))
    pretrain(probed, folder_images(image_folder, folder / "cache", 40), folder / "run")
    return folder / "run"


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_the_encoder_is_probed_on_the_way_and_the_losses_stay_as_they_are(run, image_folder, tmp_path):
    measured = {line["step"]: line for line in lines(run) if "knn" in line}
    assert list(measured) == [4, 5]
    assert measured[5]["knn"] == measured[5]["linear_probe"] == 1
    report = (run / "report.html").read_text()
    assert "Accuracy of a linear probe" in report
    assert "Accuracy by nearest neighbours" in report

    pretrain(CONFIG, folder_images(image_folder, tmp_path / "cache", 40), tmp_path / "run")
    losses = [[line["loss"] for line in lines(folder) if "loss" in line] for folder in (run, tmp_path / "run")]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 5


def test_a_linear_probe_tells_what_a_line_divides_and_guesses_what_it_cannot():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 4, generator=generator)
    labels = (features[:, 1] > 0).long()
    assert linear_accuracy(features[:150], labels[:150], features[150:], labels[150:], 2) > 0.9
    noise = torch.randint(0, 2, (200,), generator=generator)
    assert linear_accuracy(features[:150], noise[:150], features[150:], noise[150:], 2) < 0.7


def test_every_run_has_a_card_that_says_what_its_weights_are(run):
    card = (run / "model_card.md").read_text()
    head, _, text = card.removeprefix("---\n").partition("---\n")
    assert "masked-autoencoder" in head
    losses = [line["loss"] for line in lines(run) if "loss" in line]
    for said in (
        "| began from | random weights |",
        "| licence of the images | not known to this run",
        "| steps | 5 of 5, 8 images each, 40 views |",
        f"| 5 | {sum(losses) / 5:.4f} |",
        "| 4 | 100.0 % | 100.0 % |",
        "![Loss of every step](curve.png)",
        "  lr: 0.001",
        f"| torch | {version('torch')} |",
    ):
        assert said in text, said
    assert "## Command\n\n```\n" in text


@pytest.mark.parametrize("weights", ["encoder.safetensors", "checkpoints/0000005/encoder.safetensors"])
def test_the_card_goes_with_the_weights(run, tmp_path, weights):
    file = next(run.glob(weights.replace("0000005", "*5")))
    export_weights("pixio_tiny16", str(file), "timm", tmp_path / "out")
    assert (tmp_path / "out" / "README.md").read_text() == (run / "model_card.md").read_text()
    assert (tmp_path / "out" / "curve.png").is_file()
    export_weights("pixio_tiny16", "pretrained", "timm", tmp_path / "other")
    assert not (tmp_path / "other" / "README.md").exists()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"probe_every": 2}, "probe_every and probe_images go together"),
        ({"probe_images": "somewhere"}, "probe_every and probe_images go together"),
        ({"probe_every": 2, "probe_images": "x", "distribution": "fsdp"}, "measures on one process"),
    ],
)
def test_probes_that_cannot_be_made_are_refused(values, sentence):
    with pytest.raises(UserError, match=sentence):
        dataclasses.replace(TINY, **values)


def test_a_folder_without_classes_is_refused_before_the_run_begins(source, tmp_path):
    config = dataclasses.replace(TINY, probe_every=2, probe_images=str(tmp_path))
    with pytest.raises(UserError, match=r"probe_images=.*: expected train/<class>/"):
        pretrain(config, source, tmp_path / "run")
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_fewer_images_than_a_batch_are_said(image_folder, tmp_path, caplog):
    few = dataclasses.replace(TINY, steps=1, batch_size=16)
    pretrain(few, folder_images(image_folder, tmp_path / "cache", 40), tmp_path / "run")
    assert "the 13 images are fewer than the 16 of a batch" in caplog.text
