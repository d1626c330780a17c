"""What timm asks of every model of its own, asked of ours: script, trace, head, pooling, sizes, pretrained weights."""

import timm
import torch
from pytest import fixture, mark
from timm.models import get_notrace_functions, get_notrace_modules
from torch import Tensor
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from pixio_robot.encoders import PRETRAINABLE, PixioVisionTransformer

NAMES = ("pixio_tiny16", "mae_tiny16")
IMAGES = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))


def shallow(name: str, **fields: object) -> PixioVisionTransformer:
    torch.manual_seed(0)
    return timm.create_model(name, depth=2, **fields).eval()


@fixture(params=NAMES)
def name(request) -> str:
    return request.param


@mark.parametrize("fields", [{}, {"num_classes": 5}, {"dynamic_img_size": False, "img_size": (96, 128)}])
def test_scripted_models_say_the_same(name: str, fields: dict) -> None:
    model = shallow(name, **fields)
    torch.testing.assert_close(torch.jit.script(model)(IMAGES), model(IMAGES))


def symbolically_traced(model: PixioVisionTransformer) -> torch.nn.Module:
    options = {
        "leaf_modules": get_notrace_modules(),
        "autowrap_functions": get_notrace_functions(),
        "param_shapes_constant": True,
    }
    training, inference = get_graph_node_names(model, tracer_kwargs=options)
    return create_feature_extractor(
        model, train_return_nodes=training[-1:], eval_return_nodes=inference[-1:], tracer_kwargs=options
    )


def test_fx_traces_say_the_same_and_train(name: str) -> None:
    model = shallow(name, num_classes=5)
    traced = symbolically_traced(model)
    (logits,) = traced(IMAGES).values()
    assert torch.equal(logits, model(IMAGES))
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in traced.parameters())
    (scripted,) = torch.jit.script(traced)(IMAGES).values()
    torch.testing.assert_close(scripted, logits)


def test_a_fixed_size_sees_what_a_dynamic_one_sees(name: str) -> None:
    fixed, dynamic = shallow(name, dynamic_img_size=False, img_size=64), shallow(name, img_size=64)
    dynamic.load_state_dict(fixed.state_dict())
    assert torch.equal(fixed(IMAGES[..., :64, :64]), dynamic(IMAGES[..., :64, :64]))


def test_heads_read_the_mean_class_token(name: str) -> None:
    """As the pooled output of transformers' PixioModel, which test_exported_weights compares."""
    model = shallow(name, num_classes=5)
    tokens = model.forward_features(IMAGES)
    pooled = tokens[:, : model.num_prefix_tokens].mean(dim=1)
    torch.testing.assert_close(model.forward_head(tokens, pre_logits=True), pooled)
    torch.testing.assert_close(model(IMAGES), model.head(pooled))
    model.reset_classifier(0)
    torch.testing.assert_close(model(IMAGES), pooled)
    model.reset_classifier(0, "avg")
    torch.testing.assert_close(model(IMAGES), model.fc_norm(tokens[:, model.num_prefix_tokens :].mean(dim=1)))
    model.reset_classifier(0, "")
    assert torch.equal(model(IMAGES), tokens)


@mark.parametrize("pool", ["map", "max", "avgmax"])
def test_timms_other_pools_work(pool: str) -> None:
    assert shallow("pixio_tiny16", num_classes=5, global_pool=pool)(IMAGES).shape == (2, 5)


def test_pretrained_weights_fit_another_size_channels_and_a_head() -> None:
    native = timm.create_model("pixio_tiny16", pretrained=True).eval()
    other = timm.create_model("pixio_tiny16", pretrained=True, img_size=224, in_chans=1, num_classes=5).eval()
    assert other(torch.zeros(1, 1, 224, 224)).shape == (1, 5)
    assert other.patch_embed.grid_size == (14, 14)
    torch.testing.assert_close(other.pos_embed, native.positions(14, 14))
    assert torch.equal(other.blocks[5].mlp.fc1.weight, native.blocks[5].mlp.fc1.weight)


@mark.parametrize("name", PRETRAINABLE)
def test_every_variant_has_what_timm_reads_of_a_model(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, depth=3)
        images = torch.zeros(1, *model.default_cfg["input_size"])
        last, features = model.forward_intermediates(images, norm=True)
        assert model(images).shape == (1, model.num_features) == (1, model.head_hidden_size)
    assert len(features) == len(model.blocks) == len(model.feature_info)
    assert last.shape == (1, model.num_prefix_tokens + features[-1][0, 0].numel(), model.embed_dim)
    assert set(model.no_weight_decay()) <= {"pos_embed", "cls_token", "reg_token", "dist_token"}
    stated = model.default_cfg
    assert f"{stated['first_conv']}.weight" in model.state_dict()
    assert isinstance(model.get_classifier(), torch.nn.Identity)


def test_feature_maps_come_from_timms_wrapper() -> None:
    model = timm.create_model("pixio_tiny16", features_only=True).eval()
    maps: list[Tensor] = model(IMAGES)
    assert [tuple(each.shape) for each in maps] == [(2, 192, 6, 8)] * 3
