"""Artifacts: parity on fresh frames of any size and batch, metadata inside, and refusals."""

import json
from pathlib import Path

import pytest
import torch

from pixio_robot.deployment.artifact import load_artifact
from pixio_robot.deployment.export import export_encoder
from pixio_robot.encoders import EncoderConfig, VisionEncoder, frames_to_images
from pixio_robot.errors import UserError


def frames(batch: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randint(0, 256, (batch, height, width, 3), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("export") / "encoder.pt"
    export_encoder(EncoderConfig("pixio_tiny16", weights="random"), frames(4, 96, 128), path)
    return path


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 96, 128), (3, 96, 128), (2, 240, 320)])
def test_any_batch_and_camera_resolution(artifact: Path, batch: int, height: int, width: int) -> None:
    module, metadata = load_artifact(artifact)
    torch.manual_seed(0)
    encoder = VisionEncoder(EncoderConfig("pixio_tiny16", weights="random"))
    seen = frames(batch, height, width)
    images = frames_to_images(seen)
    if (height, width) != (96, 128):
        images = torch.nn.functional.interpolate(images, size=(96, 128), mode="bilinear", antialias=True)
    expected = encoder(images).flatten()
    got = module({"observation.images.camera": seen})
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)
    assert metadata["tokens"]["grid"] == [6, 8]


def test_weights_hash_tells_encoders_apart(artifact: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    other = export_encoder(EncoderConfig("pixio_tiny16", weights="random"), frames(1, 96, 128), tmp_path / "other.pt")
    assert load_artifact(artifact)[1]["encoder"]["weights_hash"] != other.metadata["encoder"]["weights_hash"]


def test_frames_of_the_wrong_kind_are_refused(artifact: Path) -> None:
    module, _ = load_artifact(artifact)
    with pytest.raises(torch.jit.Error, match="uint8"):
        module({"observation.images.camera": torch.rand(1, 96, 128, 3)})


def test_a_size_that_does_not_fit_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="divisible by 16"):
        export_encoder(EncoderConfig("pixio_tiny16", weights="random"), frames(1, 90, 128), tmp_path / "bad.pt")
    assert not list(tmp_path.iterdir())


def test_other_files_and_newer_schemas_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("no artifact")
    torch.jit.save(torch.jit.script(torch.nn.Identity()), str(tmp_path / "plain.pt"))
    for name in ("text.pt", "plain.pt", "absent.pt"):
        with pytest.raises(ValueError, match="is no pixio-robot artifact"):
            load_artifact(tmp_path / name)
    newer = {"metadata.json": json.dumps({"schema": 99})}
    torch.jit.save(torch.jit.script(torch.nn.Identity()), str(tmp_path / "newer.pt"), _extra_files=newer)
    with pytest.raises(ValueError, match="update pixio-robot"):
        load_artifact(tmp_path / "newer.pt")
