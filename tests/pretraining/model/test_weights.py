"""Weights files of encoders with their decoders: going on from them, and those that ship."""

import dataclasses
import logging

import pytest
import torch
from tiny_run import TINY

from pixio_robot.common.errors import UserError
from pixio_robot.encoders.pixio import WEIGHTS_FOLDER
from pixio_robot.images.preprocessing import normalise
from pixio_robot.pretraining.model.weights import load_mae, save_mae
from pixio_robot.pretraining.objectives.reconstruction import Reconstruction
from pixio_robot.pretraining.trainer import pretrain


@pytest.fixture
def earlier(tmp_path):
    """Return an autoencoder and the folder of its weights."""
    torch.manual_seed(1)
    mae = Reconstruction(TINY).module
    save_mae(mae, TINY.variant, tmp_path)
    return mae, tmp_path


@pytest.mark.parametrize("named", ["folder", "file", "renamed"])
def test_encoder_and_decoder_go_on_together(earlier, named):
    mae, folder = earlier
    start = {"folder": folder, "file": folder / "encoder.safetensors", "renamed": folder / "mine.safetensors"}[named]
    if named == "renamed":
        (folder / "encoder.safetensors").rename(start)
        (folder / "decoder.safetensors").rename(folder / "mine_decoder.safetensors")
    torch.manual_seed(2)
    again = Reconstruction(dataclasses.replace(TINY, start_from=str(start))).module
    for key, value in mae.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, rtol=0, atol=0)


@pytest.mark.parametrize("why", ["absent", "another shape"])
def test_a_decoder_that_starts_afresh_is_said(earlier, why, caplog):
    mae, folder = earlier
    config = dataclasses.replace(TINY, start_from=str(folder), decoder_depth=2 if why == "another shape" else 1)
    if why == "absent":
        (folder / "decoder.safetensors").unlink()
    with caplog.at_level(logging.WARNING):
        again = Reconstruction(config).module
    assert "the decoder starts afresh" in caplog.text
    torch.testing.assert_close(again.encoder.pos_embed, mae.encoder.pos_embed, rtol=0, atol=0)
    assert not torch.equal(again.decoder.pos_embed, mae.decoder.pos_embed)


def test_a_decoder_is_fitted_to_an_encoder_that_stays_as_it_is(earlier, source, tmp_path_factory):
    mae, folder = earlier
    run = tmp_path_factory.mktemp("run")
    config = dataclasses.replace(TINY, start_from=str(folder), freeze_encoder=True, optimizer="muon", steps=3)
    pretrain(config, source, run)
    again = load_mae(TINY.variant, run / "encoder.safetensors", run / "decoder.safetensors")
    for key, value in mae.encoder.state_dict().items():
        torch.testing.assert_close(again.encoder.state_dict()[key], value, rtol=0, atol=0)
    assert not torch.equal(again.decoder.head.weight, mae.decoder.head.weight)


def test_an_encoder_to_be_kept_must_be_given():
    with pytest.raises(UserError, match="give the weights of one as start_from"):
        dataclasses.replace(TINY, freeze_encoder=True)


def test_a_decoder_of_another_variant_is_refused(earlier):
    _, folder = earlier
    save_mae(Reconstruction(dataclasses.replace(TINY, variant="mae_tiny16")).module, "mae_tiny16", folder / "..")
    (folder / ".." / "decoder.safetensors").rename(folder / "decoder.safetensors")
    with pytest.raises(UserError, match="is a decoder of mae_tiny16, not of pixio_tiny16"):
        Reconstruction(dataclasses.replace(TINY, start_from=str(folder)))


@pytest.mark.parametrize("variant", ["pixio_tiny16", "pixio_small16"])
def test_shipped_weights_are_small_and_reconstruct_what_they_never_saw(variant: str) -> None:
    encoder, decoder = (WEIGHTS_FOLDER / f"{variant}{part}.safetensors" for part in ("", "_decoder"))
    assert encoder.stat().st_size + decoder.stat().st_size < 50e6
    mae = load_mae(variant, encoder, decoder).eval()
    down, right = torch.meshgrid(torch.linspace(0, 1, 128), torch.linspace(0, 1, 128), indexing="ij")
    gradients = torch.stack([torch.stack([right, down, 1 - right]), torch.stack([down] * 3)])
    with torch.no_grad():
        loss = mae(normalise(gradients), torch.Generator().manual_seed(0)).loss
    assert loss < 0.4  # 1.3 with random weights, 1 for a patch's mean
