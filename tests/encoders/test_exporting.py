"""Weights that leave: transformers' AutoModel and timm see what we see, and both folders come back in."""

from pathlib import Path

import timm
import torch
from pytest import mark, raises
from safetensors.torch import save_file
from transformers import AutoImageProcessor, AutoModel, PixioModel

from pixio_robot.common.errors import UserError
from pixio_robot.encoders import EncoderConfig, VisionEncoder
from pixio_robot.encoders.exporting import export_weights


@mark.parametrize("name", ["pixio_tiny16", "mae_tiny16"])
def test_transformers_loads_what_is_written(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    ours = timm.create_model(name).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))  # biases and norms, too
    save_file(ours.state_dict(), tmp_path / "encoder.safetensors")
    folder = tmp_path / "out"
    assert export_weights(name, str(tmp_path / "encoder.safetensors"), "transformers", folder) == 0
    theirs = AutoModel.from_pretrained(folder).eval()
    assert isinstance(theirs, PixioModel)
    for size in ((128, 128), (96, 160)):
        images = torch.randn(2, 3, *size)
        with torch.no_grad():
            output, tokens = theirs(images), ours.forward_features(images)
            torch.testing.assert_close(output.last_hidden_state, tokens, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(output.pooler_output, ours(images), rtol=1e-5, atol=1e-5)
    back = VisionEncoder(EncoderConfig(name, weights=str(folder)))
    assert all(torch.equal(value, ours.state_dict()[key]) for key, value in back.backbone.state_dict().items())


def test_transformers_prepares_frames_as_we_do(tmp_path: Path) -> None:
    export_weights("pixio_tiny16", "pretrained", "transformers", tmp_path / "out")
    frame = torch.randint(0, 256, (3, 128, 128), dtype=torch.uint8)
    prepared = AutoImageProcessor.from_pretrained(tmp_path / "out")(frame, return_tensors="pt")["pixel_values"]
    ours = VisionEncoder(EncoderConfig("pixio_tiny16")).preprocess(frame[None] / 255)
    torch.testing.assert_close(prepared, ours, rtol=1e-4, atol=1e-4)


@mark.parametrize("name", ["pixio_tiny16", "test_resnet"])
def test_timm_loads_what_is_written(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    ours = timm.create_model(name, num_classes=0).eval()
    save_file(ours.state_dict(), tmp_path / "encoder.safetensors")
    folder = tmp_path / "out"
    assert export_weights(name, str(tmp_path / "encoder.safetensors"), "timm", folder) == 0
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=3).eval()
    images = torch.randn(1, *ours.default_cfg["input_size"])
    torch.testing.assert_close(theirs.forward_features(images), ours.forward_features(images))
    assert theirs(images).shape == (1, 3)


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    with raises(UserError, match="test_resnet is none: choose format=timm"):
        export_weights("test_resnet", "random", "transformers", tmp_path / "out")
    assert not list(tmp_path.iterdir())
    (tmp_path / "there").mkdir()
    with raises(UserError, match="it exists"):
        export_weights("pixio_tiny16", "random", "timm", tmp_path / "there")
