"""Artifacts: fresh frames of any size and batch, metadata inside, a digest that finds edits, and refusals."""

import json
import zipfile
from pathlib import Path

import pytest
import torch

from pixio_robot.common.errors import UserError
from pixio_robot.deployment.artifact import load_artifact, read_metadata
from pixio_robot.deployment.export.exporter import ExportOptions, export_encoder
from pixio_robot.encoders import EncoderConfig, VisionEncoder
from pixio_robot.images.preprocessing import frames_to_images

CAMERA = "observation.images.camera"


def frames(batch: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randint(0, 256, (batch, height, width, 3), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("export") / "encoder.pt"
    export_encoder(EncoderConfig("pixio_tiny16", weights="random"), frames(4, 96, 128), path)
    return path


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 96, 128), (3, 96, 128), (2, 240, 320), (1, 479, 640)])
def test_any_batch_and_camera_resolution(artifact: Path, batch: int, height: int, width: int) -> None:
    module, metadata = load_artifact(artifact)
    torch.manual_seed(0)
    encoder = VisionEncoder(EncoderConfig("pixio_tiny16", weights="random"))
    seen = frames(batch, height, width)
    images = frames_to_images(seen)
    if (height, width) != (96, 128):
        images = torch.nn.functional.interpolate(images, size=(96, 128), mode="bilinear", antialias=True)
    expected = encoder(images).flatten()
    got = module({CAMERA: seen})
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    assert metadata["tokens"]["grid"] == [6, 8]


@pytest.mark.parametrize(
    ("precision", "most", "smaller"), [("float16", 5e-3, 0.55), ("bfloat16", 5e-2, 0.55), ("int8", 0.3, 0.35)]
)
def test_other_precisions_are_near_and_small(
    artifact: Path, precision: str, most: float, smaller: float, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = EncoderConfig("pixio_tiny16", weights="random")
    path = tmp_path / "small.pt"
    export_encoder(config, frames(4, 96, 128), path, ExportOptions(precision=precision))
    module, metadata = load_artifact(path)
    seen = {CAMERA: frames(3, 96, 128)}
    expected = load_artifact(artifact)[0](seen)
    difference = (module(seen) - expected).abs().max() / expected.abs().max()
    assert 1e-6 < difference < most
    assert path.stat().st_size < smaller * artifact.stat().st_size
    assert metadata["precision"] == precision
    if precision == "int8":
        with pytest.raises(UserError, match="runs on cpu, not on cuda"):
            load_artifact(path, "cuda")


def test_weights_hash_tells_encoders_apart(artifact: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    other = export_encoder(EncoderConfig("pixio_tiny16", weights="random"), frames(1, 96, 128), tmp_path / "other.pt")
    assert load_artifact(artifact)[1]["encoder"]["weights_hash"] != other["encoder"]["weights_hash"]


@pytest.mark.parametrize(
    ("observation", "sentence"),
    [
        ({}, f"{CAMERA} is missing: the artifact reads {CAMERA}"),
        ({CAMERA: torch.rand(1, 96, 128, 3)}, f"{CAMERA} must be uint8 (B, height, width, 3) in RGB"),
        ({CAMERA: frames(1, 96, 128)[0]}, f"{CAMERA} must be uint8 (B, height, width, 3) in RGB"),
        ({CAMERA: frames(1, 96, 128).permute(0, 3, 1, 2)}, f"{CAMERA} must be uint8 (B, height, width, 3) in RGB"),
        ({CAMERA: frames(1, 128, 128)}, f"{CAMERA} brings frames of 128x128 px (height x width), but the artifact "),
        ({CAMERA: frames(1, 128, 96)}, "another size of that aspect ratio: crop them first"),
    ],
)
def test_frames_that_do_not_fit_are_refused_in_a_sentence(
    artifact: Path, observation: dict[str, torch.Tensor], sentence: str
) -> None:
    module, _ = load_artifact(artifact)
    with pytest.raises(torch.jit.Error) as caught:
        module(observation)
    assert sentence in str(caught.value).strip().splitlines()[-1]


def test_a_size_that_does_not_fit_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="divisible by 16"):
        export_encoder(EncoderConfig("pixio_tiny16", weights="random"), frames(1, 90, 128), tmp_path / "bad.pt")
    assert not list(tmp_path.iterdir())


def edited(artifact: Path, path: Path, entry: str, edit) -> Path:
    """Copy an artifact with the contents of one entry changed."""
    with zipfile.ZipFile(artifact) as old, zipfile.ZipFile(path, "w") as new:
        for info in old.infolist():
            content = old.read(info)
            new.writestr(info, edit(content) if info.filename.endswith(entry) else content)
    return path


@pytest.mark.parametrize(
    ("entry", "edit"),
    [
        ("metadata.json", lambda content: content.replace(b'"colour_order": "RGB"', b'"colour_order": "BGR"')),
        ("data/5", lambda content: content[:-1] + bytes([content[-1] ^ 1])),
        (".py", lambda content: content + b"\n"),
    ],
)
def test_edited_metadata_weights_and_code_are_found(artifact: Path, entry: str, edit, tmp_path: Path) -> None:
    copy = edited(artifact, tmp_path / "copy.pt", entry, lambda content: content)
    assert read_metadata(copy) == read_metadata(artifact)
    changed = edited(artifact, tmp_path / "edited.pt", entry, edit)
    with pytest.raises(UserError, match="damaged or edited since its export"):
        load_artifact(changed)


def test_other_files_and_other_schemas_are_refused(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("no artifact")
    torch.jit.save(torch.jit.script(torch.nn.Identity()), str(tmp_path / "plain.pt"))
    (tmp_path / "half.pt").write_bytes(artifact.read_bytes()[:100_000])
    for name in ("text.pt", "plain.pt", "half.pt"):
        with pytest.raises(UserError, match="is not a pixio-robot artifact"):
            load_artifact(tmp_path / name)
    for name in ("absent.pt", "absent.pt2", "absent.onnx"):
        with pytest.raises(UserError, match=f"There is no file .*{name}"):
            load_artifact(tmp_path / name)
    for schema, sentence in ((99, "update pixio-robot"), (1, "export it again")):
        metadata = {**read_metadata(artifact), "schema": schema}
        other = edited(
            artifact, tmp_path / "other.pt", "metadata.json", lambda _, text=metadata: json.dumps(text).encode()
        )
        with pytest.raises(UserError, match=sentence):
            load_artifact(other)
