"""Tokens from inside of encoders, beside what timm gives."""

from pathlib import Path

import pytest
import torch
from torch import nn

from pixio_robot.common.errors import UserError
from pixio_robot.encoders import EncoderConfig, VisionEncoder
from pixio_robot.encoders.intermediate import evenly_spaced, stages


@pytest.mark.parametrize(
    ("depth", "count", "blocks"),
    [(12, 4, [2, 5, 8, 11]), (24, 4, [5, 11, 17, 23]), (6, 4, [1, 2, 4, 5]), (6, 1, [5]), (4, 4, [0, 1, 2, 3])],
)
def test_blocks_are_evenly_spaced_and_the_last_is_among_them(depth: int, count: int, blocks: list[int]) -> None:
    assert evenly_spaced(depth, count) == blocks


@pytest.mark.parametrize(
    ("name", "size"), [("pixio_tiny16", 64), ("vit_tiny_patch16_224", 64), ("vit_small_patch16_dinov3", 64)]
)
def test_transformers_give_what_timm_gives(name: str, size: int) -> None:
    encoder = VisionEncoder(EncoderConfig(name=name, weights="random"))
    images = torch.rand(2, 3, size, size)
    found = encoder.intermediate(images, 4)
    indices, _ = stages(encoder.backbone, 4, name)
    with torch.no_grad():
        layers = encoder.backbone.forward_intermediates(
            encoder.preprocess(images), indices=indices, return_prefix_tokens=True, norm=True, intermediates_only=True
        )
        if hasattr(encoder.backbone, "get_intermediate_layers"):
            layers = encoder.backbone.get_intermediate_layers(
                encoder.preprocess(images), n=indices, reshape=True, return_prefix_tokens=True, norm=True
            )
    for tokens, (grid, prefix) in zip(found, layers, strict=True):
        assert torch.equal(tokens.patch_tokens, grid.permute(0, 2, 3, 1))
        assert torch.equal(tokens.global_tokens, prefix[:, : encoder.num_global])
    last = encoder(images)
    assert torch.equal(found[-1].patch_tokens, last.patch_tokens)
    assert torch.equal(found[-1].global_tokens, last.global_tokens)
    assert not torch.equal(found[0].patch_tokens, last.patch_tokens)


def test_convolutions_give_a_pyramid() -> None:
    encoder = VisionEncoder(EncoderConfig(name="resnet18", weights="random"))
    found = encoder.intermediate(torch.rand(1, 3, 64, 64), 4)
    assert [tuple(tokens.patch_tokens.shape) for tokens in found] == [
        (1, 16, 16, 64),
        (1, 8, 8, 128),
        (1, 4, 4, 256),
        (1, 2, 2, 512),
    ]
    assert torch.allclose(found[0].global_tokens[:, 0], found[0].patch_tokens.mean(dim=(1, 2)))


def test_raw_pixels_are_an_encoder_like_others() -> None:
    encoder = VisionEncoder(EncoderConfig(name="pixels"))
    images = torch.rand(2, 3, 32, 48)
    tokens = encoder(images)
    assert tokens.patch_tokens.shape == (2, 2, 3, 768)
    assert torch.equal(tokens.patch_tokens[:, 1, 2].view(2, 3, 16, 16), images[:, :, 16:, 32:])
    assert all(torch.equal(tokens.patch_tokens, inside.patch_tokens) for inside in encoder.intermediate(images, 4))
    assert encoder.reference() is None
    encoder.load_state_dict(encoder.state_dict())


def test_gradients_flow_where_the_encoder_trains() -> None:
    images = torch.rand(1, 3, 32, 32)
    trained = VisionEncoder(EncoderConfig(name="pixio_tiny16", weights="random", mode="finetune"))
    assert trained.intermediate(images, 2)[0].patch_tokens.requires_grad
    frozen = VisionEncoder(EncoderConfig(name="pixio_tiny16", weights="random"))
    assert not frozen.intermediate(images, 2)[0].patch_tokens.requires_grad


def test_what_has_no_inside_says_so(tmp_path: Path) -> None:
    class Mean(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean(dim=1, keepdim=True)

    torch.jit.script(Mean()).save(tmp_path / "encoder.pt")
    script = VisionEncoder(EncoderConfig(name="torchscript", weights=str(tmp_path / "encoder.pt")))
    with pytest.raises(UserError, match="output alone"):
        script.intermediate(torch.rand(1, 3, 32, 32), 4)
    with pytest.raises(UserError, match="6 blocks or stages, and 7"):
        VisionEncoder(EncoderConfig(name="pixio_tiny16", weights="random")).intermediate(torch.rand(1, 3, 32, 32), 7)
