"""TorchScript encoders of users, traced and scripted, leave in every format, or are refused in a sentence."""

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from pixio_robot.common.errors import UserError
from pixio_robot.deployment.artifact import load_artifact
from pixio_robot.deployment.export.exporter import ExportOptions, export_encoder
from pixio_robot.encoders import EncoderConfig
from pixio_robot.images.preprocessing import frames_to_images

SIZE = 64


class Branching(nn.Module):
    """Its code branches and loops over what it finds of its input's shape."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Conv2d(3, 8, 8, 8)
        self.layers = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.project(images).flatten(2).transpose(1, 2)
        if images.shape[-1] >= images.shape[-2]:
            tokens = tokens.flip(1)
        for layer in self.layers:
            tokens = tokens + torch.tanh(layer(tokens))
        return torch.cat([tokens.mean(dim=1, keepdim=True).expand(images.shape[0], 2, -1), tokens], dim=1)


class LookingAtPixels(nn.Module):
    """Does something else with dark images."""

    def forward(self, images: Tensor) -> Tensor:
        if bool(images.mean() < 0.1):
            return images[:, :, ::8, ::8]
        return images[:, :, 4::8, 4::8]


def traced(name: str, **fields: object) -> torch.jit.ScriptModule:
    model = timm.create_model(name, num_classes=0, global_pool="", **fields).eval()
    return torch.jit.trace(model, torch.rand(1, 3, SIZE, SIZE))


ENCODERS: dict[str, Callable[[], torch.jit.ScriptModule]] = {
    "scripted": lambda: torch.jit.script(Branching()),
    "traced CNN": lambda: traced("resnet10t"),
    "traced ViT": lambda: traced("vit_tiny_patch16_224", img_size=SIZE, depth=2),
}


@pytest.fixture
def frames() -> Tensor:
    return torch.randint(0, 256, (5, SIZE, SIZE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


CASES = [(encoder, suffix) for encoder in ENCODERS for suffix in ("pt2", "onnx")]


@pytest.mark.parametrize(
    ("encoder", "suffix"),
    [pytest.param(*case, marks=[] if case == ("scripted", "pt2") else pytest.mark.slow) for case in CASES],
)
def test_scripts_leave_as_graphs(encoder: str, suffix: str, frames: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    script = ENCODERS[encoder]()
    script.save(str(tmp_path / "encoder.pt"))
    config = EncoderConfig("torchscript", str(tmp_path / "encoder.pt"), image_size=SIZE)
    path = tmp_path / f"artifact.{suffix}"
    export_encoder(config, frames[:3], path, ExportOptions(suffix))
    module, _ = load_artifact(path)
    expected = script(frames_to_images(frames))
    if expected.ndim == 4:
        expected = expected.flatten(2).transpose(1, 2)
    for rows in (1, 5):
        got = module({"observation.images.camera": frames[:rows]})[:, -expected.shape[1] :]
        torch.testing.assert_close(got, expected[:rows], rtol=1e-5, atol=1e-5)
    assert path.stat().st_size < 1.5 * (tmp_path / "encoder.pt").stat().st_size + 300_000  # weights are there once


@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
def test_code_that_looks_at_pixels_is_refused(suffix: str, frames: Tensor, tmp_path: Path) -> None:
    torch.jit.script(LookingAtPixels()).save(str(tmp_path / "encoder.pt"))
    config = EncoderConfig("torchscript", str(tmp_path / "encoder.pt"), image_size=SIZE)
    with pytest.raises(
        UserError, match="cannot turn the code of .*encoder.pt into a graph.*: use format=torchscript"
    ) as caught:
        export_encoder(config, frames, tmp_path / f"artifact.{suffix}", ExportOptions(suffix))
    assert len(str(caught.value).splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.pt"]
    export_encoder(config, frames, tmp_path / "artifact.pt")  # the advice works
