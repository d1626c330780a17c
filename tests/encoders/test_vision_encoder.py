"""VisionEncoder: tokens, frozen mode, preprocessing, readouts, and clear refusals."""

import json

import torch
from huggingface_hub import constants
from pytest import MonkeyPatch, mark, raises
from safetensors.torch import save_file

from pixio_robot.common.errors import UserError
from pixio_robot.encoders import EncoderConfig, VisionEncoder, readout
from pixio_robot.encoders.backbones import side_for_frames
from pixio_robot.images.preprocessing import ImagePreprocessor, frames_to_images


def encoder(name: str = "pixio_tiny16", **fields) -> VisionEncoder:
    return VisionEncoder(EncoderConfig(name, weights="random", **fields))


@mark.parametrize(
    ("name", "num_global", "width", "grid"),
    [
        ("pixio_tiny16", 8, 192, (6, 10)),
        ("resnet18", 1, 512, (3, 5)),
        ("vit_small_patch16_dinov3", 1, 384, (6, 10)),
        ("vit_base_patch16_224.mae", 1, 768, (6, 10)),
        ("vit_base_patch16_siglip_224.v2_webli", 1, 768, (6, 10)),
    ],
)
def test_any_backbone_gives_tokens(name: str, num_global: int, width: int, grid: tuple[int, int]) -> None:
    model = encoder(name)
    tokens = model(torch.rand(2, 3, 96, 160))
    assert tokens.global_tokens.shape == (2, num_global, width) == (2, model.num_global, model.width)
    assert tokens.patch_tokens.shape == (2, *grid, width)
    assert model.grid(96, 160) == grid


def test_dinov2_sees_frames_resized_to_its_patches_of_14() -> None:
    tokens = encoder("vit_small_patch14_dinov2.lvd142m", image_size=126)(torch.rand(2, 3, 128, 128))
    assert tokens.global_tokens.shape == (2, 1, 384)
    assert tokens.patch_tokens.shape == (2, 9, 9, 384)
    with raises(UserError, match="divisible by 14; set encoder.image_size=126"):
        encoder("vit_small_patch14_dinov2.lvd142m").grid(128, 128)


def test_patch_tokens_keep_their_places() -> None:
    """A changed corner changes its own patch token most."""
    model = encoder()
    images = torch.full((2, 3, 128, 128), 0.5)
    images[1, :, 0:16, 112:128] = 1.0
    patches = model(images).patch_tokens
    change = (patches[1] - patches[0]).norm(dim=-1)
    assert change.argmax() == 7  # top right of the 8 × 8 grid


def test_frozen_stays_frozen_in_training() -> None:
    model = encoder()
    model.train()
    assert not model.backbone.training
    assert not model(torch.rand(1, 3, 128, 128)).patch_tokens.requires_grad
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_finetune_takes_gradients() -> None:
    model = encoder(mode="finetune")
    model.train()
    model(torch.rand(1, 3, 128, 128)).patch_tokens.sum().backward()
    assert model.backbone.patch_embed.proj.weight.grad is not None


def test_preprocessing_is_resize_then_imagenet_normalisation() -> None:
    model = encoder(image_size=64)
    frames = torch.randint(0, 256, (1, 128, 128, 3), dtype=torch.uint8)
    got = model.preprocess(frames_to_images(frames))
    images = frames.permute(0, 3, 1, 2) / 255
    small = torch.nn.functional.interpolate(images, size=64, mode="bilinear", antialias=True)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(got, (small - mean[:, None, None]) / std[:, None, None])
    assert model.grid(128, 128) == (4, 4)


def test_tokens_survive_flattening() -> None:
    tokens = encoder()(torch.rand(2, 3, 96, 160))
    again = type(tokens).unflatten(tokens.flatten(), 8, (6, 10))
    assert torch.equal(again.global_tokens, tokens.global_tokens)
    assert torch.equal(again.patch_tokens, tokens.patch_tokens)


def test_readouts() -> None:
    tokens = encoder()(torch.rand(2, 3, 96, 160))
    mean = tokens.global_tokens.mean(1)
    assert torch.equal(readout("cls_mean")(tokens), mean)
    assert torch.equal(readout("cls")(tokens)[:, 192:384], tokens.global_tokens[:, 1])
    assert torch.equal(readout("flatten")(tokens)[:, -192:], tokens.patch_tokens[:, -1, -1])
    assert readout("flatten")(tokens).shape == (2, (8 + 6 * 10) * 192)
    assert torch.equal(readout("patch_map")(tokens)[:, :, 2, 7], tokens.patch_tokens[:, 2, 7])
    both = readout("patch_and_cls")(tokens)
    assert torch.equal(both[:, :192, 2, 7], tokens.patch_tokens[:, 2, 7])
    assert torch.equal(both[:, 192:, 5, 9], mean)
    with raises(UserError, match="Did you mean 'cls_mean'"):
        readout("cls_men")


def test_unknown_name_offers_the_nearest() -> None:
    with raises(UserError, match="Did you mean 'pixio_vitl16'"):
        encoder("pixio_vitl61")


def test_size_not_divisible_by_the_patch() -> None:
    with raises(UserError, match=r"100×128 px do not fit pixio_tiny16.*divisible by 16.*image_size=96"):
        encoder()(torch.rand(1, 3, 100, 128))


def test_official_weights_offline_name_three_ways(monkeypatch: MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    with raises(UserError, match=r"facebook/pixio-vitb16.*\(1\).*\(2\).*\(3\)"):
        VisionEncoder(EncoderConfig("pixio_vitb16"))


def test_official_weights_come_from_the_hub_cache(monkeypatch: MonkeyPatch, tmp_path) -> None:
    """The hub's cache layout with small files stands in for a downloaded ViT-B."""
    torch.manual_seed(0)
    source = encoder("pixio_vitb16")
    snapshot = tmp_path / "models--facebook--pixio-vitb16" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    references = tmp_path / "models--facebook--pixio-vitb16" / "refs"
    references.mkdir()
    (references / "main").write_text("0" * 40)
    weights = source.backbone.state_dict()
    names = sorted(weights)
    shards = {"model-00001-of-00002.safetensors": names[:80], "model-00002-of-00002.safetensors": names[80:]}
    for file, keys in shards.items():
        save_file({key: weights[key] for key in keys}, snapshot / file)
    index = {"weight_map": {key: file for file, keys in shards.items() for key in keys}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    loaded = VisionEncoder(EncoderConfig("pixio_vitb16"))
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(loaded(images).flatten(), source(images).flatten())


@mark.parametrize(
    ("name", "patch", "frame", "chosen", "seen"),
    [
        ("pixio_tiny16", 16, (480, 640), 128, (96, 128)),
        ("pixio_vitb16", 16, (480, 640), 256, (192, 256)),
        ("pixio_vitb16", 16, (1280, 720), 256, (256, 144)),
        ("pixio_vitb16", 16, (256, 256), None, (256, 256)),
        ("pixio_tiny16", 16, (100, 100), 96, (96, 96)),
        ("vit_small_patch14_dinov2", 14, (480, 640), 252, (196, 252)),
        ("resnet18", None, (480, 640), 224, (224, 224)),
        ("resnet18", None, (128, 128), None, (128, 128)),
    ],
)
def test_frames_of_cameras_are_seen_at_the_encoders_size(
    name: str, patch: int | None, frame: tuple[int, int], chosen: int | None, seen: tuple[int, int]
) -> None:
    assert side_for_frames(name, [frame]) == chosen
    assert ImagePreprocessor((0.0,) * 3, (1.0,) * 3, chosen, patch).seen(*frame) == seen


def test_frames_keep_their_aspect_and_squares_are_filled_up() -> None:
    wide_BCHW = torch.zeros(1, 3, 48, 64)
    wide_BCHW[..., :32] = 1.0
    to_patches = ImagePreprocessor((0.5,) * 3, (1.0,) * 3, side=32, patch=8)(wide_BCHW)
    assert to_patches.shape == (1, 3, 24, 32)
    assert torch.equal(to_patches[..., :14], torch.full((1, 3, 24, 14), 0.5))
    square = ImagePreprocessor((0.5,) * 3, (1.0,) * 3, side=32)(wide_BCHW)
    assert torch.equal(square[:, :, 4:28], to_patches)
    assert square[:, :, :4].abs().sum() == square[:, :, 28:].abs().sum() == 0
