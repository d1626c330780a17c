"""Whole pretraining runs: they learn, stop at nonsense, and leave loadable results."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import tiny_run
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from timm.models.vision_transformer import Block
from tiny_run import logged_losses

from pixio_robot.common.errors import UserError
from pixio_robot.pretraining.batches import image_indices
from pixio_robot.pretraining.config import PretrainConfig
from pixio_robot.pretraining.model.stochastic_depth import StochasticDepth
from pixio_robot.pretraining.model.weights import load_mae
from pixio_robot.pretraining.objectives.reconstruction import Reconstruction
from pixio_robot.pretraining.pictures import reconstruct
from pixio_robot.pretraining.sources import ImageCache, folder_images
from pixio_robot.pretraining.trainer import pretrain

TINY = dataclasses.replace(tiny_run.TINY, drop_path=0.2)


@pytest.fixture(scope="module")
def finished(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    torch.set_num_threads(1)
    config = dataclasses.replace(TINY, steps=60)
    pretrain(config, folder_images(image_folder, folder / "cache", 40), folder / "run")
    return folder / "run"


def test_a_run_learns_and_leaves_weights_log_curve_and_pictures(finished: Path) -> None:
    losses = list(logged_losses(finished).values())
    assert np.mean(losses[-10:]) < 0.95 * np.mean(losses[:5])
    encoder = timm.create_model("pixio_tiny16", img_size=32)
    encoder.load_state_dict(load_file(finished / "encoder.safetensors"))
    with safe_open(finished / "encoder.safetensors", "pt") as file:
        assert file.metadata()["variant"] == "pixio_tiny16"
        assert file.metadata()["image_size"] == "32"
    assert Image.open(finished / "curve.png").width > 100
    assert Image.open(finished / "reconstructions" / "0000060.png").size == (8 * 36 - 4, 3 * 36 - 4)
    assert "steps: 60" in (finished / "config.yaml").read_text()


def test_reconstructions_keep_what_is_visible(finished: Path, source: ImageCache) -> None:
    mae = load_mae("pixio_tiny16", finished / "encoder.safetensors", finished / "decoder.safetensors")
    frames = source.read([0, 1])[:, :32, :32]
    picture = reconstruct(mae, frames, seed=0)
    assert np.array_equal(picture, reconstruct(mae, frames, seed=0))
    original, hidden, guess = (picture[row : row + 32, 36:68].astype(int) for row in (0, 36, 72))
    assert np.array_equal(original, frames[1].numpy())
    visible = (hidden == original).all(axis=2)
    assert visible.mean() == pytest.approx(0.5, abs=0.01)  # 2 of 4 patches
    assert abs(guess - original)[visible].max() <= 1
    assert (hidden[~visible] == 128).all()
    # Predictions are scaled back with the true mean of their patch, which alone puts them near it.
    rows = np.arange(32) // 16
    for row in (0, 1):
        for column in (0, 1):
            patch = np.ix_(rows == row, rows == column)
            assert guess[patch].mean() == pytest.approx(original[patch].mean(), abs=25)


def test_decoder_of_another_variant_or_no_decoder_is_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not of pixio_small16"):
        load_mae("pixio_small16", finished / "encoder.safetensors", finished / "decoder.safetensors")
    with pytest.raises(UserError, match=r"decoder\.safetensors"):
        load_mae("pixio_tiny16", finished / "encoder.safetensors", tmp_path / "nothing.safetensors")


def test_accumulation_changes_no_result(source: ImageCache, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, drop_path=0.0, photometric=None, steps=3)
    pretrain(dataclasses.replace(config, accumulation=1), source, tmp_path / "one")
    pretrain(dataclasses.replace(config, accumulation=4), source, tmp_path / "four")
    one, four = logged_losses(tmp_path / "one"), logged_losses(tmp_path / "four")
    assert list(one.values()) == pytest.approx(list(four.values()), rel=1e-4)


def test_bfloat16_trains(source: ImageCache, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, precision="bfloat16", result_dtype="float16", steps=2)
    encoder = pretrain(config, source, tmp_path / "run")
    pretrain(dataclasses.replace(config, precision="float32"), source, tmp_path / "full")
    half, full = logged_losses(tmp_path / "run"), logged_losses(tmp_path / "full")
    assert half != full
    assert list(half.values()) == pytest.approx(list(full.values()), rel=0.03)
    assert {value.dtype for value in load_file(encoder).values()} == {torch.float16}


def test_crops_of_a_whole_batch_and_residuals_in_bfloat16_train_alike(source: ImageCache, tmp_path: Path) -> None:
    """Torch's kernel for one image rounds between its two passes, matrix products for all do not."""
    config = dataclasses.replace(TINY, steps=3, crop_filter="bicubic")
    for name, change in {
        "one by one": {},
        "together": {"crops": "device"},
        "bfloat16": {"precision": "bfloat16"},
        "residuals": {"precision": "bfloat16", "residual": "bfloat16"},
    }.items():
        pretrain(dataclasses.replace(config, **change), source, tmp_path / name)
    losses = {name: list(logged_losses(tmp_path / name).values()) for name in ("one by one", "together", "bfloat16")}
    assert losses["together"] != losses["one by one"]
    assert losses["together"] == pytest.approx(losses["one by one"], rel=1e-3)
    residuals = list(logged_losses(tmp_path / "residuals").values())
    assert residuals != losses["bfloat16"]
    assert residuals == pytest.approx(losses["bfloat16"], rel=1e-2)
    with pytest.raises(UserError, match="residual=bfloat16 goes with precision=bfloat16, not float32"):
        dataclasses.replace(config, residual="bfloat16")


def test_activation_checkpointing_and_splitting_the_batch_change_no_loss(source: ImageCache, tmp_path: Path) -> None:
    pretrain(TINY, source, tmp_path / "kept")
    again = dataclasses.replace(TINY, activation_checkpointing=True)
    pretrain(again, source, tmp_path / "again")
    pretrain(dataclasses.replace(TINY, accumulation=8), source, tmp_path / "split")
    kept = list(logged_losses(tmp_path / "kept").values())
    assert list(logged_losses(tmp_path / "again").values()) == pytest.approx(kept, rel=1e-6)
    # Masks, colours and dropped branches are drawn for the whole batch, so only the order of sums differs.
    assert list(logged_losses(tmp_path / "split").values()) == pytest.approx(kept, rel=1e-5)


def test_stochastic_depth_drops_branches_of_single_images_and_keeps_the_mean() -> None:
    block = Block(8, 2, drop_path=0.5)
    depth = StochasticDepth(block)
    factors = depth.draw(4000, torch.Generator().manual_seed(0))
    assert factors.shape == (2, 4000)
    assert set(factors.unique().tolist()) == {0.0, 2.0}
    assert factors.mean().item() == pytest.approx(1, abs=0.05)
    x = torch.randn(3, 5, 8)
    depth.set_factors(torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 2.0]]).T)
    block.train()
    out = block(x)
    assert torch.equal(out[0], x[0])
    torch.testing.assert_close(out[1], x[1] + 2 * block.attn(block.norm1(x[1:2]))[0])
    torch.testing.assert_close(out[2], x[2] + 2 * block.mlp(block.norm2(x[2:3]))[0])
    block.eval()
    attended = x + block.attn(block.norm1(x))
    torch.testing.assert_close(block(x), attended + block.mlp(block.norm2(attended)))


def test_a_loss_that_is_no_number_names_its_step_and_keeps_the_checkpoint(source: ImageCache, tmp_path: Path) -> None:
    run = tmp_path / "run"
    # The rate reaches its absurd peak at the end of a warm-up over the whole run.
    config = dataclasses.replace(TINY, steps=200, lr=1e30, warmup=1.0, checkpoint_minutes=0)
    with pytest.raises(UserError, match=r"at step \d+") as caught:
        pretrain(config, source, run)
    if "loss" in str(caught.value):  # or the weights stopped being numbers before it
        assert ".png" in str(caught.value)
    kept = [folder.name for folder in run.glob("checkpoints/[0-9]*")]
    for folder in run.glob("checkpoints/[0-9]*"):
        assert all(value.isfinite().all() for value in load_file(folder / "encoder.safetensors").values())
    assert len(kept) <= config.keep_checkpoints
    assert not (run / "encoder.safetensors").exists()


def test_a_bad_batch_is_named_and_the_last_good_checkpoint_stays(
    source: ImageCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    loss = Reconstruction.loss
    calls = []

    def broken(self: Reconstruction, *arguments: Any) -> torch.Tensor:
        calls.append(1)
        value = loss(self, *arguments)
        return value * float("nan") if len(calls) == 3 else value

    monkeypatch.setattr(Reconstruction, "loss", broken)
    config = dataclasses.replace(TINY, accumulation=1, checkpoint_minutes=0)
    with pytest.raises(UserError, match=r"at step 3 \(with .*\.png") as caught:
        pretrain(config, source, run)
    assert str(run / "checkpoints" / "000002") in str(caught.value)
    names = [source.names([index])[0] for index in image_indices(0, 2, 8, 13)]
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    (stopped,) = [record for record in records if record.get("event") == "stopped"]
    assert stopped["samples"] == names
    assert sorted(folder.name for folder in (run / "checkpoints").glob("[0-9]*")) == ["000001", "000002"]
    monkeypatch.undo()
    pretrain(config, source, run, resume=True)
    assert len(logged_losses(run)) == 4


def test_every_epoch_shows_every_image_once_in_a_new_order() -> None:
    drawn = [index for step in range(13) for index in image_indices(0, step, 8, 13)]
    epochs = [drawn[start : start + 13] for start in range(0, len(drawn), 13)]
    assert all(sorted(epoch) == list(range(13)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_frames_smaller_than_crops_are_said_and_the_log_knows_the_wait_for_data(
    image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = dataclasses.replace(TINY, steps=2, accumulation=1)
    pretrain(config, folder_images(image_folder, tmp_path / "cache", 24), tmp_path / "run")
    assert "the frames have 24 pixels a side and the crops 32: every crop is an enlargement" in caplog.text
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert all(0 <= line["data_wait"] <= 1 for line in lines if "loss" in line)


def test_learning_rate_warms_up_and_falls_as_a_cosine() -> None:
    config = dataclasses.replace(TINY, lr=None, base_lr=1e-3, batch_size=512, warmup=0.1)
    rates = [config.learning_rate(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(2e-4)
    assert rates[9] == rates[10] == pytest.approx(2e-3)
    assert rates[55] == pytest.approx(1e-3)
    assert rates[99] < 1e-5
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": None}, "exactly one of steps and epochs"),
        ({"base_lr": 1e-3}, "exactly one of lr and base_lr"),
        ({"accumulation": 3}, "cannot be split"),
        ({"precision": "bfloat61"}, "Did you mean 'bfloat16'"),
        ({"variant": "resnet18"}, "Only Pixio encoders"),
        ({"variant": "pixio_tini16"}, "Did you mean 'pixio_tiny16'"),
        ({"image_size": 40}, "patches of 16"),
        ({"mask_block": 4}, "do not divide"),
        ({"decoder_heads": 3}, "3 heads"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    change: dict[str, object], message: str, source: ImageCache, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        pretrain(PretrainConfig(**dataclasses.asdict(TINY) | change), source, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_unknown_settings_are_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="Did you mean 'mask_ratio'"):
        PretrainConfig(**{"variant": "pixio_tiny16", "mask_ration": 0.5})
