"""The Pixio family: sizes against the paper, forward values against transformers' implementation."""

from pathlib import Path

import timm
import torch
from pytest import fixture, mark, raises
from safetensors.torch import save_file
from transformers import PixioConfig, PixioModel

from pixio_robot.common.errors import UserError
from pixio_robot.encoders import PRETRAINABLE, EncoderConfig, VisionEncoder, weights_hash
from pixio_robot.encoders.checkpoints import load_encoder_weights
from pixio_robot.encoders.pixio import pixio_checkpoint_filter

# Table 1 of arXiv 2512.15715, in millions.
PAPER_PARAMETERS = {
    "pixio_vitb16": 85.86,
    "pixio_vitl16": 303.38,
    "pixio_vith16": 631.01,
    "pixio_vit1b16": 1361.5,
    "pixio_vit5b16": 5440.9,
}
TRANSFORMERS_SHAPES = {
    "pixio_vitl16": (1024, 24, 16),
    "pixio_vith16": (1280, 32, 16),
    "pixio_vit1b16": (1536, 48, 24),
    "pixio_vit5b16": (3072, 48, 32),
}


@fixture(scope="module")
def transformers_vitb() -> PixioModel:
    """Transformers' ViT-B with random weights in every parameter, zeros and ones included."""
    torch.manual_seed(0)
    model = PixioModel(PixioConfig(hidden_size=768, num_hidden_layers=12, num_attention_heads=12)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


@mark.parametrize(("name", "millions"), PAPER_PARAMETERS.items())
def test_parameter_counts_are_the_papers(name: str, millions: float) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert abs(count - millions) <= 0.5 * 10 ** -len(str(millions).partition(".")[2])


@mark.parametrize(("name", "shape"), TRANSFORMERS_SHAPES.items())
def test_large_variants_have_the_shapes_of_transformers(name: str, shape: tuple[int, int, int]) -> None:
    width, depth, heads = shape
    with torch.device("meta"):
        ours = timm.create_model(name)
        theirs = PixioModel(PixioConfig(hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads))
    adapted = pixio_checkpoint_filter(theirs.state_dict(), ours)
    assert {k: v.shape for k, v in adapted.items()} == {k: v.shape for k, v in ours.state_dict().items()}
    assert ours.blocks[0].attn.num_heads == heads


@mark.parametrize("size", [(256, 256), (128, 128), (224, 320)])
def test_forward_equals_transformers(transformers_vitb: PixioModel, size: tuple[int, int]) -> None:
    ours = timm.create_model("pixio_vitb16").eval()
    ours.load_state_dict(pixio_checkpoint_filter(transformers_vitb.state_dict(), ours))
    images = torch.randn(1, 3, *size)
    with torch.no_grad():
        expected, got = transformers_vitb(images).last_hidden_state, ours.forward_features(images)
    assert (expected - got).abs().max() <= 1e-5 * expected.abs().max()


@mark.parametrize("layout", ["original", "transformers folder", "transformers memory", "timm"])
def test_all_checkpoint_layouts_give_the_same_features(layout: str, tmp_path) -> None:
    torch.manual_seed(1)
    small = {"hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 3, "image_size": 128}
    theirs = PixioModel(PixioConfig(**small)).eval()
    with torch.no_grad():
        theirs.embeddings.cls_token.normal_()
    ours = timm.create_model("pixio_tiny16").eval()
    adapted = pixio_checkpoint_filter(theirs.state_dict(), ours)
    path = tmp_path / "weights.safetensors"
    if layout == "transformers folder":
        theirs.save_pretrained(tmp_path / "folder")
        path = tmp_path / "folder"
    elif layout == "transformers memory":
        save_file(theirs.state_dict(), path)
    elif layout == "timm":
        save_file(adapted, path)
    else:  # FACTS of the original .pth: eight tokens in cls_token, fused qkv, decoder weights beside
        original = {key: value for key, value in adapted.items() if key not in ("cls_token", "reg_token")}
        original["cls_token"] = torch.cat([adapted["cls_token"], adapted["reg_token"]], dim=1)
        original["mask_token"] = torch.zeros(1, 1, 512)
        original["decoder_blocks.0.norm1.weight"] = torch.zeros(512)
        path = tmp_path / "weights.pth"
        torch.save({"model": original}, path)
    load_encoder_weights(ours, path, "pixio_tiny16")
    images = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        expected, got = theirs(images).last_hidden_state, ours.forward_features(images)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@mark.parametrize("name", ["pixio_tiny16", "pixio_small16", "mae_tiny16"])
@mark.parametrize("size", [(128, 128), (96, 160)])
def test_our_variants_train_and_trace(name: str, size: tuple[int, int]) -> None:
    assert name in PRETRAINABLE
    model = timm.create_model(name)
    images = torch.randn(2, 3, *size)
    model.forward_features(images).square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.eval()
    traced = torch.jit.trace(model, images)
    torch.testing.assert_close(traced(images), model(images))


def test_weights_of_another_variant_are_refused(tmp_path) -> None:
    save_file(timm.create_model("pixio_small16").state_dict(), tmp_path / "small.safetensors")
    with raises(UserError, match="another variant than pixio_tiny16"):
        VisionEncoder(EncoderConfig("pixio_tiny16", weights=str(tmp_path / "small.safetensors")))


def test_missing_keys_are_named(tmp_path) -> None:
    weights = timm.create_model("pixio_tiny16").state_dict()
    del weights["blocks.3.attn.qkv.weight"]
    save_file(weights, tmp_path / "holes.safetensors")
    with raises(UserError, match=r"1 missing keys \(blocks.3.attn.qkv.weight\)"):
        VisionEncoder(EncoderConfig("pixio_tiny16", weights=str(tmp_path / "holes.safetensors")))


@mark.parametrize("content", [b"", b"not weights at all"])
def test_a_file_that_is_no_weights_is_refused(tmp_path, content: bytes) -> None:
    for name in ("broken.safetensors", "broken.pth"):
        (tmp_path / name).write_bytes(content)
        with raises(UserError, match="cannot be read as encoder weights"):
            VisionEncoder(EncoderConfig("pixio_tiny16", weights=str(tmp_path / name)))


def test_pickled_objects_are_never_loaded(tmp_path) -> None:
    torch.save({"model": EncoderConfig()}, tmp_path / "objects.pth")
    with raises(UserError, match="holds only tensors"):
        VisionEncoder(EncoderConfig("pixio_tiny16", weights=str(tmp_path / "objects.pth")))


def test_hash_follows_the_weights() -> None:
    torch.manual_seed(0)
    first = timm.create_model("pixio_tiny16")
    torch.manual_seed(0)
    again = timm.create_model("pixio_tiny16")
    assert weights_hash(first) == weights_hash(again)
    with torch.no_grad():
        again.pos_embed[0, 0, 0] += 1e-3
    assert weights_hash(first) != weights_hash(again)


def test_weights_of_another_image_size_load_with_resampled_positions(tmp_path: Path) -> None:
    """Pretrained or distilled at 64 px, loaded into the model of 128 px: both see a 64 px image the same way."""
    torch.manual_seed(0)
    small = timm.create_model("pixio_tiny16", img_size=64, dynamic_img_size=True).eval()
    save_file(small.state_dict(), tmp_path / "encoder.safetensors")
    large = timm.create_model("pixio_tiny16", dynamic_img_size=True).eval()
    load_encoder_weights(large, tmp_path / "encoder.safetensors", "pixio_tiny16")
    assert large.patch_embed.grid_size == (8, 8)
    torch.testing.assert_close(large.pos_embed[:, :8], small.pos_embed[:, :8])
    torch.testing.assert_close(large.positions(8, 8), small.positions(8, 8))
    torch.testing.assert_close(large.blocks[0].mlp.fc1.weight, small.blocks[0].mlp.fc1.weight)
