"""LoRA, frozen weights by reference, TorchScript encoders: what trains, what is saved, what is refused."""

import copy
from pathlib import Path

import torch
from pytest import MonkeyPatch, fixture, mark, raises
from safetensors.torch import load_model, save_file, save_model
from torch import nn

from pixio_robot.common.errors import UserError
from pixio_robot.encoders import EncoderConfig, VisionEncoder, weights_hash
from pixio_robot.encoders.backbones import build_backbone

TINY = "pixio_tiny16"
IMAGES = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A weights file of a random tiny encoder."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(build_backbone(TINY, "random").state_dict(), path)
    return path


def encoder(weights: Path | str = "random", **fields) -> VisionEncoder:
    return VisionEncoder(EncoderConfig(TINY, weights=str(weights), **fields))


def trained_adapters(weights: Path) -> VisionEncoder:
    """An encoder whose adapters have left their start, where they change nothing."""
    model = encoder(weights, mode="lora", lora_rank=2)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.05)
    return model


def test_lora_trains_adapters_alone_and_starts_at_the_frozen_encoder(weights: Path) -> None:
    model, frozen = encoder(weights, mode="lora", lora_rank=2).train(), encoder(weights)
    assert torch.equal(model(IMAGES).flatten(), frozen(IMAGES).flatten())
    model(IMAGES).patch_tokens.square().sum().backward()
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    # Two targets in six blocks, (in + out) · rank each: qkv 192 + 576, proj 192 + 192.
    assert sum(parameter.numel() for parameter in trainable.values()) == 6 * 2 * (192 + 576 + 192 + 192)
    assert all("lora_" in name for name in trainable)
    assert trainable["backbone.blocks.0.attn.qkv.lora_B.default.weight"].grad.abs().sum() > 0
    assert not model.backbone.training


def test_merged_adapters_say_the_same_and_can_be_traced(weights: Path) -> None:
    model = trained_adapters(weights).eval()
    expected = model(IMAGES).flatten().detach()
    assert not torch.allclose(expected, encoder(weights)(IMAGES).flatten(), atol=1e-3)
    model.merge_adapters()
    assert set(model.backbone.state_dict()) == set(build_backbone(TINY, "random").state_dict())
    traced = torch.jit.trace(lambda images: model(images).flatten(), IMAGES)
    torch.testing.assert_close(traced(IMAGES), expected, rtol=1e-4, atol=1e-4)


@mark.parametrize(
    ("fields", "message"),
    [
        ({"lora_targets": ["attn.qvk"]}, r"'attn.qvk' matches no layer.*attn.qkv, attn.proj, mlp.fc1, mlp.fc2"),
        ({"lora_targets": []}, "empty list"),
        ({"lora_rank": 0}, "at least 1"),
        ({"mode": "lroa"}, "Did you mean 'lora'"),
    ],
)
def test_wrong_modes_and_targets_are_named(fields: dict, message: str) -> None:
    with raises(UserError, match=message):
        encoder(**{"mode": "lora", **fields})


@mark.parametrize("mode", ["frozen", "lora"])
def test_frozen_weights_are_referred_to_and_come_back(weights: Path, tmp_path: Path, mode: str) -> None:
    model = encoder(weights) if mode == "frozen" else trained_adapters(weights)
    file = tmp_path / "policy.safetensors"
    save_model(nn.ModuleDict({"encoder": model}), str(file))
    # Adapters of rank 2: 55 kB; the encoder: 11 MB.
    assert file.stat().st_size < 100_000 < weights.stat().st_size
    config = EncoderConfig(TINY, "random", mode, lora_rank=2)  # type: ignore[arg-type]
    loaded = nn.ModuleDict({"encoder": VisionEncoder(config, from_checkpoint=True)})
    load_model(loaded, str(file), strict=True)
    assert torch.equal(loaded["encoder"](IMAGES).flatten(), model(IMAGES).flatten())
    again = tmp_path / "again.safetensors"
    save_model(loaded, str(again))
    assert again.read_bytes() == file.read_bytes()


def test_states_with_all_weights_load_and_stay_so(weights: Path) -> None:
    """As checkpoints of random, fine-tuned and self-contained encoders have them, and all of earlier versions."""
    for model in (encoder(), encoder(mode="finetune"), encoder(weights, self_contained=True)):
        state = model.state_dict()
        assert sum(value.numel() for value in state.values()) > 2_000_000
        loaded = encoder(weights)
        loaded.load_state_dict(state)
        assert torch.equal(loaded(IMAGES).flatten(), model(IMAGES).flatten())
        assert loaded.state_dict().keys() == state.keys()  # no file holds these weights: nothing to refer to


def test_other_weights_under_the_same_name_are_refused(weights: Path, tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    file = tmp_path / "mine.safetensors"
    file.write_bytes(weights.read_bytes())
    state = encoder(file).state_dict()
    fresh = VisionEncoder(EncoderConfig(TINY, "random"), from_checkpoint=True)
    other = encoder()
    save_file(other.backbone.state_dict(), file)
    with raises(UserError, match=f"other weights of {TINY} .*{weights_hash(other.backbone)}.*self_contained=true"):
        copy.deepcopy(fresh).load_state_dict(state)
    with raises(UserError, match="other weights"):
        encoder(file).load_state_dict(state)
    file.unlink()
    with raises(UserError, match="which is not there: put mine.safetensors"):
        copy.deepcopy(fresh).load_state_dict(state)
    monkeypatch.chdir(tmp_path / "..")
    moved = VisionEncoder(EncoderConfig(TINY, str(weights)), from_checkpoint=True)
    moved.load_state_dict(state)  # the config says where the file is now
    assert weights_hash(moved.backbone) == weights_hash(encoder(weights).backbone)


class Script(nn.Module):
    """Patches of 16 px as tokens after two global ones, as a map, or something else."""

    def __init__(self, output: str) -> None:
        super().__init__()
        self.output = output
        self.patches = nn.Conv2d(3, 5, 16, 16)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.patches(images)
        if self.output == "map":
            return maps
        if self.output == "vector":
            return maps.mean(dim=(2, 3))
        tokens = maps.flatten(2).transpose(1, 2)
        return torch.cat([tokens[:, :2] * 0 + 7, tokens], dim=1)


def script_encoder(folder: Path, output: str, **fields) -> VisionEncoder:
    torch.manual_seed(0)
    torch.jit.script(Script(output)).save(folder / "encoder.pt")
    return VisionEncoder(EncoderConfig("torchscript", str(folder / "encoder.pt"), **fields))


@mark.parametrize("output", ["tokens", "map"])
def test_a_torchscript_encoder_gives_tokens(tmp_path: Path, output: str) -> None:
    model = script_encoder(tmp_path, output)
    tokens = model.train()(IMAGES)
    num_global = 2 if output == "tokens" else 1
    assert tokens.global_tokens.shape == (2, num_global, 5) == (2, model.num_global, model.width)
    assert tokens.patch_tokens.shape == (2, *model.grid(64, 96), 5) == (2, 4, 6, 5)
    corner = model.backbone.module.patches(IMAGES[:, :, 16:32, 80:96])[:, :, 0, 0]  # images arrive as they are
    torch.testing.assert_close(tokens.patch_tokens[:, 1, 5], corner)
    assert not tokens.patch_tokens.requires_grad
    state = model.state_dict()
    again = script_encoder(tmp_path, output)
    again.load_state_dict(state)
    assert torch.equal(again(IMAGES).flatten(), tokens.flatten())
    assert sum(value.numel() for value in state.values()) < 500  # the file is referred to


def test_torchscript_files_that_are_none_are_refused(tmp_path: Path, weights: Path) -> None:
    with raises(UserError, match=r"gives shape \(2, 5\).*expected floating-point tokens \(B, N, D\)"):
        script_encoder(tmp_path, "vector", image_size=64)
    with raises(UserError, match="can only be frozen"):
        script_encoder(tmp_path, "map", mode="lora")
    with raises(UserError, match="is code"):
        script_encoder(tmp_path, "map", self_contained=True)
    with raises(UserError, match="is no TorchScript file"):
        VisionEncoder(EncoderConfig("torchscript", str(weights)))
    with raises(UserError, match="does not run on images"):
        script_encoder(tmp_path, "map").grid(8, 8)
    with raises(UserError, match="No TorchScript encoder at nowhere.pt"):
        VisionEncoder(EncoderConfig("torchscript", "nowhere.pt"))
