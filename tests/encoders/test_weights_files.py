"""Weights files as other people's training code leaves them: containers, prefixes, layouts, and what is no weights at all."""

import argparse
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from pytest import CaptureFixture, mark, param, raises
from safetensors.torch import save_file
from torch import Tensor

from pixio_robot.common.errors import UserError
from pixio_robot.encoders import EncoderConfig, VisionEncoder, load_encoder_weights
from pixio_robot.encoders.checkpoints import read_weights
from pixio_robot.encoders.exporting import Format, export_weights
from pixio_robot.encoders.torchscript import TorchScriptBackbone
from pixio_robot.pretraining.model.weights import save_encoder

State = dict[str, Tensor]
PIXIO, PEER = "pixio_tiny16", "vit_tiny_patch16_224"


def model(name: str, seed: int) -> Any:
    torch.manual_seed(seed)
    return timm.create_model(name, **({"depth": 2, "num_classes": 0} if name == PEER else {})).eval()


def under(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def other(state: State) -> State:
    return {key: value + 1 for key, value in state.items()}


CONTAINERS: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    "a key": lambda state: {"model": state},
    "a training checkpoint": lambda state: {
        "model": state,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1.0}]},
        "epoch": 3,
        "args": argparse.Namespace(lr=1),
    },
    "Lightning": lambda state: {"state_dict": under("model.", state), "hyper_parameters": {}, "epoch": 1},
    "Lightning with a head and a loss": lambda state: {
        "state_dict": under("net.encoder.", state) | {"net.head.weight": torch.zeros(3), "loss.scale": torch.ones(1)}
    },
    "DINO": lambda state: {
        "teacher": under("module.backbone.", state) | {"module.head.mlp.0.weight": torch.zeros(3)},
        "student": under("module.backbone.", other(state)),
    },
    "a moving average": lambda state: {"state_dict": other(state), "state_dict_ema": under("module.", state)},
    "a moving average, flat": lambda state: under("online.", other(state)) | under("ema_model.module.", state),
    "DDP": lambda state: under("module.", state),
    "compiled": lambda state: under("_orig_mod.", state),
    "wrapped again and again": lambda state: under("module._orig_mod.model.backbone.", state),
    "a policy": lambda state: {"model": under("encoder.backbone.", state) | {"head.weight": torch.zeros(2)}},
    "a decoder beside it": lambda state: under(
        "module.", state | {"decoder_blocks.0.norm1.weight": torch.zeros(3), "mask_token": torch.zeros(1, 1, 4)}
    ),
    "a classifier": lambda state: state | {"head.weight": torch.zeros(10, 192), "head.bias": torch.zeros(10)},
}


@mark.parametrize("name", [PIXIO, PEER])
@mark.parametrize("container", CONTAINERS)
def test_weights_are_found_in_their_container(name: str, container: str, tmp_path: Path) -> None:
    source, target = model(name, 0), model(name, 1)
    file = tmp_path / "weights.pth"
    torch.save(CONTAINERS[container](source.state_dict()), file)
    load_encoder_weights(target, file, name)
    loaded = target.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in source.state_dict().items())


def test_of_two_copies_the_terminal_says_which_is_read(tmp_path: Path, capsys: CaptureFixture[str]) -> None:
    torch.save(CONTAINERS["DINO"](model(PIXIO, 0).state_dict()), tmp_path / "dino.pth")
    load_encoder_weights(model(PIXIO, 1), tmp_path / "dino.pth", PIXIO)
    assert "read from teacher.module.backbone; student.module.backbone has them, too" in capsys.readouterr().err
    torch.save(model(PIXIO, 0).state_dict(), tmp_path / "plain.pth")
    load_encoder_weights(model(PIXIO, 1), tmp_path / "plain.pth", PIXIO)
    assert not capsys.readouterr().err


@mark.parametrize("name", ["vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2"])
def test_facebooks_dinov2_file_loads(name: str, tmp_path: Path) -> None:
    """Beside the network it has a mask token; with registers, the class token's position stands apart from the token."""
    torch.manual_seed(0)
    short: dict[str, Any] = {"depth": 1, "num_classes": 0, "img_size": 56}
    source = timm.create_model(name, **short).eval()
    state = source.state_dict()
    if source.reg_token is not None:
        state["cls_token"].normal_()
        state["register_tokens"] = state.pop("reg_token")
        at_class = torch.randn(1, 1, 384)
        state["cls_token"] = state["cls_token"] - at_class
        state["pos_embed"] = torch.cat([at_class, state["pos_embed"]], dim=1)
    torch.save(state | {"mask_token": torch.zeros(1, 384)}, tmp_path / "dinov2.pth")
    target = timm.create_model(name, **short).eval()
    load_encoder_weights(target, tmp_path / "dinov2.pth", name)
    images = torch.randn(1, 3, 56, 56)
    torch.testing.assert_close(target.forward_features(images), source.forward_features(images))


def test_a_peers_positions_are_resampled_by_timm(tmp_path: Path) -> None:
    small = timm.create_model(PEER, depth=1, num_classes=0, img_size=112)
    torch.save(small.state_dict(), tmp_path / "small.pth")
    large = timm.create_model(PEER, depth=1, num_classes=0)
    load_encoder_weights(large, tmp_path / "small.pth", PEER)
    torch.testing.assert_close(large.pos_embed[:, 0], small.pos_embed[:, 0])
    assert large.pos_embed.shape[1] == 14 * 14 + 1


def with_wide_positions(state: State) -> State:
    return state | {"pos_embed": torch.randn(1, 8 + 6 * 10, 192)}


@mark.parametrize(
    ("make", "message"),
    [
        param(
            lambda state: state | {"norm.weight": state["norm.weight"] * torch.nan},
            r"192 of 192 values of norm\.weight are not finite",
            id="NaN",
        ),
        param(
            lambda state: {"a": {"b.norm.bias": state["norm.bias"] + torch.inf, "b.norm.weight": state["norm.weight"]}},
            r"192 of 192 values of norm\.bias are not finite",
            id="infinity",
        ),
        param(
            lambda state: {"generator": {"conv.weight": torch.zeros(3)}, "epoch": 2},
            r"holds no weights of pixio_tiny16.*outermost keys are generator, epoch",
            id="another network",
        ),
        param(lambda state: {}, "outermost keys are none", id="nothing"),
        param(lambda state: {"epoch": 2, "loss": [0.1]}, "outermost keys are epoch, loss", id="no tensors"),
        param(lambda state: list(state.values()), "holds a list without names", id="a list"),
        param(lambda state: torch.zeros(3), "holds a Tensor without names", id="a tensor"),
        param(
            lambda state: {key: (value * 50).to(torch.int8) for key, value in state.items()},
            r"cls_token is int8, where floats of 16 to 64 bits should be",
            id="whole numbers",
        ),
        param(
            lambda state: state | {"norm.bias": state["norm.bias"].double() + 1e300},
            r"192 of 192 values of norm\.bias are not finite",
            id="too large for float32",
        ),
        param(lambda state: state | {"norm.bias": state["norm.bias"] > 0}, r"norm\.bias is bool", id="truth values"),
        param(lambda state: state | {"norm.bias": state["norm.bias"] * 1j}, r"norm\.bias is complex64", id="complex"),
        param(
            lambda state: state | {"norm.bias": state["norm.bias"].to(torch.float8_e4m3fn)},
            r"norm\.bias is float8_e4m3fn",
            id="8 bits",
        ),
        param(
            lambda state: state | {"norm.bias": state["norm.bias"].to_sparse()},
            r"norm\.bias is float32 \(sparse\)",
            id="sparse",
        ),
        param(
            lambda state: state | {"norm.bias": torch.quantize_per_tensor(state["norm.bias"], 0.1, 0, torch.qint8)},
            r"norm\.bias is qint8",
            id="quantised",
        ),
        param(
            lambda state: state | {"norm.bias": state["norm.bias"].to("meta")},
            r"norm\.bias is a shape without values",
            id="without values",
        ),
        param(with_wide_positions, "images that are not square", id="wide images"),
        param(
            lambda state: {key: value for key, value in state.items() if "blocks.5" not in key},
            r"12 missing keys.*outermost keys are cls_token, reg_token, pos_embed",
            id="incomplete",
        ),
        param(
            lambda state: {**state, "pos_embed": torch.zeros(1, 65, 192), "reg_token": torch.zeros(1, 0, 192)},
            "of another variant than pixio_tiny16: pos_embed",
            id="one class token",
        ),
        param(
            lambda state: {**state, "pos_embed": torch.zeros(1, 65, 192), "cls_token": torch.zeros(1, 1, 192)},
            r"pos_embed has shape \(1, 65, 192\), expected \(1, 72, 192\).*another number of class tokens",
            id="positions behind one class token",
        ),
    ],
)
def test_what_is_no_weights_is_said(make: Callable[[State], Any], message: str, tmp_path: Path) -> None:
    torch.save(make(model(PIXIO, 0).state_dict()), tmp_path / "weights.pth")
    with raises(UserError, match=message):
        load_encoder_weights(model(PIXIO, 1), tmp_path / "weights.pth", PIXIO)


def test_a_file_is_what_it_holds_and_not_what_it_is_called(tmp_path: Path) -> None:
    state = model(PIXIO, 0).state_dict()
    torch.save(state, tmp_path / "torchs.safetensors")
    save_file(state, tmp_path / "safe.bin")
    for name in ("torchs.safetensors", "safe.bin"):
        read = read_weights(tmp_path / name)
        assert all(torch.equal(read[key], value) for key, value in state.items())
    (tmp_path / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    (tmp_path / "page.pth").write_text("<html>404</html>")
    (tmp_path / "empty.pth").write_bytes(b"")
    for name, says in (
        ("pointer.pth", "only points to weights that Git LFS keeps elsewhere"),
        ("page.pth", "cannot be read as encoder weights: it begins with b'<html>404</html>'"),
        ("empty.pth", "it begins with b'', being empty"),
    ):
        with raises(UserError, match=says):
            read_weights(tmp_path / name)


def test_of_a_folder_the_usual_file_is_read_or_all_shards_of_one(tmp_path: Path) -> None:
    state = model(PIXIO, 0).state_dict()
    torch.save({"state": {}}, tmp_path / "optimizer.bin")
    torch.save(state, tmp_path / "pytorch_model.bin")
    (tmp_path / "._model.safetensors").write_bytes(b"\0\5\26\7")
    assert read_weights(tmp_path).keys() == state.keys()
    first = dict(list(state.items())[:9])
    save_file(first, tmp_path / "model.safetensors")
    assert read_weights(tmp_path).keys() == first.keys()
    (tmp_path / "model.safetensors").rename(tmp_path / "model-00001-of-00002.safetensors")
    (tmp_path / "pytorch_model.bin").unlink()
    save_file({key: value for key, value in state.items() if key not in first}, tmp_path / "other.safetensors")
    assert read_weights(tmp_path).keys() == state.keys()
    save_file(first, tmp_path / "copy.safetensors")
    with raises(
        UserError, match=r"holds \S+ in copy\.safetensors and in model-00001-of-00002\.safetensors: give the path"
    ):
        read_weights(tmp_path)


def test_a_pickled_network_is_named_and_not_unpickled(tmp_path: Path) -> None:
    torch.save(model(PIXIO, 0), tmp_path / "whole.pth")
    with raises(
        UserError, match=re.escape("holds more than tensors (pixio_robot.encoders.pixio.PixioVisionTransformer)")
    ):
        load_encoder_weights(model(PIXIO, 1), tmp_path / "whole.pth", PIXIO)


def test_a_peers_wrong_file_is_a_sentence(tmp_path: Path) -> None:
    wide = timm.create_model(PEER, depth=1, num_classes=0).state_dict() | {"pos_embed": torch.zeros(1, 61, 192)}
    torch.save(wide, tmp_path / "wide.pth")
    with raises(UserError, match=r"shapes differ in pos_embed \(1, 61, \d+\) for \(1, 197, \d+\)"):
        load_encoder_weights(timm.create_model(PEER, depth=1, num_classes=0), tmp_path / "wide.pth", PEER)
    save_file({"conv.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with raises(UserError, match="holds no weights of resnet18.*outermost keys are conv"):
        VisionEncoder(EncoderConfig("resnet18", weights=str(tmp_path / "other.safetensors")))


def write_torchscript(state: State, folder: Path) -> Path:
    class Scaling(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(state["blocks.0.mlp.fc1.weight"][:3, :1, None])

        def forward(self, images: Tensor) -> Tensor:
            return torch.nn.functional.avg_pool2d(images, 16) * self.scale

    torch.jit.script(Scaling()).save(folder / "encoder.pt")
    return folder / "encoder.pt"


def write_pth(state: State, folder: Path) -> Path:
    torch.save({"model": state}, folder / "encoder.pth")
    return folder / "encoder.pth"


def write_ours(state: State, folder: Path) -> Path:
    encoder = timm.create_model(PIXIO)
    encoder.load_state_dict(state)
    save_encoder(encoder, PIXIO, folder)
    return folder / "encoder.safetensors"


def exported(form: Format) -> Callable[[State, Path], Path]:
    def write(state: State, folder: Path) -> Path:
        export_weights(PIXIO, str(write_pth(state, folder)), form, folder / form)
        return folder / form / "model.safetensors"

    return write


@mark.parametrize(
    "write",
    [write_ours, exported("timm"), exported("transformers"), write_pth, write_torchscript],
    ids=lambda one: one.__qualname__,
)
def test_a_damaged_file_is_refused_wherever_a_bit_has_changed(
    write: Callable[[State, Path], Path], tmp_path: Path
) -> None:
    state = model(PIXIO, 0).state_dict()
    file = write(state, tmp_path)
    content = file.read_bytes()

    def read() -> State:
        if write is write_torchscript:
            return TorchScriptBackbone(file, image_size=32).module.state_dict()
        weights = read_weights(file)
        return weights.get("model", weights)

    whole, chance, said = read(), random.Random(0), list[str]()
    for _ in range(30):
        place = chance.randrange(len(content))
        file.write_bytes(content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :])
        try:
            weights = read()
        except UserError as error:
            said.append(str(error))
        else:  # what no part of the format is
            assert all(torch.equal(value, weights[key]) for key, value in whole.items())
    assert len(said) > 15
    assert all(str(file) in sentence for sentence in said)
