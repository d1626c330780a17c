"""The published recipes compose and have the hyper-parameters of arXiv 2512.15715 (tables of its appendix)."""

import jobs
import pytest
import timm
import torch
from timm.optim._param_groups import param_groups_weight_decay

from pixio_robot.pretraining.config import DistillConfig, PretrainConfig
from pixio_robot.pretraining.objectives.reconstruction import Reconstruction


def composed(script: str, group: str, *overrides: str) -> dict:
    return jobs.composed(script, "images.path=somewhere", *overrides)[group]


def recipe(name: str) -> PretrainConfig:
    return PretrainConfig(**composed("pretrain_encoder", "pretraining", f"pretraining={name}"))


@pytest.mark.parametrize(
    ("name", "variant", "batch_size", "base_lr", "steps"),
    [
        ("vith_imagenet", "pixio_vith16", 8192, 2.5e-5, 1605 * 400),
        ("vit5b", "pixio_vit5b16", 16384, 1.25e-5, 1605 * 800),
    ],
)
def test_published_recipes(name: str, variant: str, batch_size: int, base_lr: float, steps: int) -> None:
    config = recipe(name)
    assert (config.steps, config.crop_filter) == (steps, "bicubic")
    assert (config.residual, config.compile_blocks) == ("bfloat16", True)
    assert (config.variant, config.batch_size, config.base_lr) == (variant, batch_size, base_lr)
    assert config.peak_lr == pytest.approx(8e-4)
    assert config.warmup == 0.1
    assert max(config.learning_rate(step, 1000) for step in range(1000)) == pytest.approx(8e-4)
    assert config.learning_rate(99, 1000) == pytest.approx(8e-4)
    assert (config.decoder_dim, config.decoder_depth, config.decoder_heads) == (512, 32, 16)
    assert (config.image_size, config.mask_ratio, config.mask_block) == (256, 0.75, 4)
    assert (config.weight_decay, config.drop_path, config.precision) == (0.05, 0.4, "bfloat16")
    assert config.crop_scale == (0.2, 1.0)
    assert config.crop_ratio == pytest.approx((3 / 4, 4 / 3), abs=1e-4)
    assert config.photometric is None
    with torch.device("meta"):
        objective = Reconstruction(config)
    native = timm.get_pretrained_cfg(variant)
    assert native is not None and native.input_size == (3, 256, 256)
    probabilities = [getattr(block.drop_path2, "drop_prob", 0.0) for block in objective.encoder.blocks]
    assert probabilities[0] == 0.0
    assert probabilities[-1] == pytest.approx(0.4)
    decayed = {id(value) for value in param_groups_weight_decay(objective.module, 0.05)[1]["params"]}
    for parameter in objective.module.parameters():
        assert (id(parameter) in decayed) == (parameter.ndim > 1)


def test_a_laptop_needs_no_graphics_card() -> None:
    config = recipe("laptop")
    assert (config.variant, config.device, config.precision) == ("pixio_tiny16", "cpu", "float32")


@pytest.mark.parametrize(
    ("name", "student", "mask_ratio", "mask_block", "drop_path"),
    [("vitl_vitb", "pixio_vitl16", 0.0, 1, 0.1), ("vit1b_vith", "pixio_vith16", 0.5, 4, 0.4)],
)
def test_published_distillation(name: str, student: str, mask_ratio: float, mask_block: int, drop_path: float) -> None:
    chosen = [f"distillation={name}", "distillation.epochs=100"]
    config = DistillConfig(**composed("distill_encoder", "distillation", *chosen))
    assert (config.variant, config.teacher) == (student, "pixio_vit5b16")
    assert (config.mask_ratio, config.mask_block, config.drop_path) == (mask_ratio, mask_block, drop_path)
    assert (config.peak_lr, config.batch_size) == (1e-3, 8192)
    other = composed("distill_encoder", "distillation", *chosen, "encoder=pixio_vitb")
    assert other["variant"] == "pixio_vitb16"


def test_laptop_distillation_composes() -> None:
    config = DistillConfig(**composed("distill_encoder", "distillation"))
    assert (config.variant, config.device) == ("pixio_tiny16", "cpu")
