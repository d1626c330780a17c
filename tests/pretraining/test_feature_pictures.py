"""Attention and feature pictures, the TensorBoard log and the report of a pretraining run."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import tiny_run
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pixio_robot.encoders import PixioVisionTransformer
from pixio_robot.engine.curves import Board
from pixio_robot.pretraining.feature_pictures import class_token_attention, feature_picture, principal_colours
from pixio_robot.pretraining.sources import ImageCache
from pixio_robot.pretraining.trainer import pretrain

TINY = dataclasses.replace(tiny_run.TINY, batch_size=4, accumulation=1, steps=3, photometric=None)


@pytest.fixture(scope="module")
def encoder() -> PixioVisionTransformer:
    torch.manual_seed(0)
    encoder = timm.create_model("pixio_tiny16", img_size=64)
    assert isinstance(encoder, PixioVisionTransformer)
    return encoder.eval()


def test_attention_is_that_of_the_last_block(encoder: PixioVisionTransformer) -> None:
    images = torch.randn(2, 3, 64, 48)
    attention = class_token_attention(encoder, images)
    assert attention.shape == (2, 8, 4, 3)
    # timm's own plain attention, made to give its weights away as if they were values.
    last = encoder.blocks[-1].attn
    weights: list[torch.Tensor] = []
    hook = last.attn_drop.register_forward_hook(lambda *call: weights.append(call[2]))
    fused, last.fused_attn = last.fused_attn, False
    with torch.no_grad():
        encoder.forward_features(images)
    hook.remove()
    last.fused_attn = fused
    expected = weights[0].mean(dim=1)[:, :8, 8:].reshape(2, 8, 4, 3)
    torch.testing.assert_close(attention, expected, rtol=1e-4, atol=1e-6)


def test_colours_are_principal_components_shared_over_images() -> None:
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(2, 4, 4, 3, generator=generator) * torch.tensor([9.0, 4.0, 1.0])
    axes, _ = torch.linalg.qr(torch.randn(10, 3, generator=generator))
    colours = principal_colours(latent @ axes.T + 5)
    assert colours.min() == 0
    assert colours.max() == 1
    for channel in range(3):
        pair = torch.stack([colours[..., channel].flatten(), latent[..., channel].flatten()])
        assert torch.corrcoef(pair)[0, 1].abs() > 0.9


def test_features_of_frames_become_one_picture(encoder: PixioVisionTransformer) -> None:
    frames = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    picture = feature_picture(encoder, frames)
    assert picture.shape == (3 * 68 - 4, 10 * 68 - 4, 3)
    assert np.array_equal(picture[68:132, :64], frames[1].numpy())


def scalars(folder: Path, name: str) -> dict[int, float]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return {event.step: event.value for event in events.Scalars(name)}


def test_a_run_shows_itself_in_tensorboard_and_in_a_report(source: ImageCache, tmp_path: Path) -> None:
    run = tmp_path / "pretrain_encoder" / "2025-01-02_03-04-05"
    pretrain(TINY, source, run)
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    losses = {record["step"]: record["loss"] for record in records if "loss" in record}
    assert scalars(run / "tensorboard", "loss") == pytest.approx(losses)
    assert set(scalars(run / "tensorboard", "lr")) == {1, 2, 3}
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["images"]) == {"reconstructions", "features"}
    assert Image.open(run / "features" / "0000003.png").width == 10 * 36 - 4
    page = (run / "report.html").read_text()
    assert "After 3 steps" in page
    assert page.count("data:image/png;base64,") == 2
    assert "Loss · pretraining" in page
    assert "evaluation" not in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_a_resumed_run_takes_back_what_it_repeats(tmp_path: Path) -> None:
    board = Board(tmp_path, 0)
    board.scalars([{"step": step, "loss": 1.0} for step in range(1, 6)])
    board.close()
    board = Board(tmp_path, 3)
    board.scalars([{"step": step, "loss": 2.0} for step in range(4, 6)])
    board.close()
    assert scalars(tmp_path, "loss") == {1: 1.0, 2: 1.0, 3: 1.0, 4: 2.0, 5: 2.0}


def test_pictures_do_not_change_the_run(source: ImageCache, tmp_path: Path) -> None:
    def losses(name: str, minutes: float) -> list[float]:
        pretrain(dataclasses.replace(TINY, checkpoint_minutes=minutes), source, tmp_path / name)
        records = [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        return [record["loss"] for record in records if "loss" in record]

    assert losses("pictures after every step", 0) == losses("pictures at the end", 60)
