"""Distillation: the loss is the paper's, only the student learns, and what comes out loads."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from forked_scripts import run_script
from torch.nn import functional

from pixio_robot.common.errors import UserError
from pixio_robot.encoders import EncoderConfig, VisionEncoder, load_encoder_weights
from pixio_robot.pretraining.model.masking import block_mask, split_patches
from pixio_robot.pretraining.model.weights import create_encoder, save_encoder
from pixio_robot.pretraining.objectives.base import ImagePart
from pixio_robot.pretraining.objectives.distillation import (
    Distillation,
    DistillConfig,
    Student,
    TeacherTokens,
    check_teacher_fits,
    distillation_loss,
)
from pixio_robot.pretraining.sources import ImageCache
from pixio_robot.pretraining.trainer import train

TINY = DistillConfig(
    variant="pixio_tiny16",
    teacher="pixio_tiny16",
    image_size=32,
    mask_ratio=0.0,
    mask_block=1,
    batch_size=8,
    accumulation=1,
    steps=4,
    lr=1e-3,
    checkpoint_minutes=0,
)


def losses(folder: Path) -> list[float]:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


def one_minus_cosine(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return 1 - (one * other).sum(-1) / (one.norm(dim=-1) * other.norm(dim=-1))


def test_loss_is_half_class_tokens_half_visible_patch_tokens() -> None:
    torch.manual_seed(0)
    classes, patches = torch.randn(2, 8, 5), torch.randn(2, 3, 5)
    teacher = TeacherTokens(torch.randn(2, 8, 5), torch.randn(2, 2, 2, 5))
    visible = torch.tensor([[0, 1, 3], [1, 2, 3]])
    seen = torch.stack([teacher.patch_BhwT[image].flatten(0, 1)[visible[image]] for image in range(2)])
    patch_loss = one_minus_cosine(patches, seen).mean()
    assert teacher.class_BGT is not None
    expected = 0.5 * one_minus_cosine(classes, teacher.class_BGT).mean() + 0.5 * patch_loss
    torch.testing.assert_close(distillation_loss(classes, patches, teacher, visible, (2, 2)), expected)
    # A teacher with one class token: with the mean of the student's.
    single = teacher._replace(class_BGT=teacher.class_BGT[:, :1])
    expected = 0.5 * one_minus_cosine(classes.mean(1), teacher.class_BGT[:, 0]).mean() + 0.5 * patch_loss
    torch.testing.assert_close(distillation_loss(classes, patches, single, visible, (2, 2)), expected)
    # None: patch tokens alone.
    none = teacher._replace(class_BGT=None)
    torch.testing.assert_close(distillation_loss(classes, patches, none, visible, (2, 2)), patch_loss)


def test_a_coarser_teacher_map_is_interpolated() -> None:
    ramp = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).reshape(1, 2, 2, 1)
    teacher = TeacherTokens(None, torch.cat([ramp, torch.ones_like(ramp)], dim=-1))
    everything = torch.arange(16)[None]
    # Bilinear, pixel centres: 0, 1/4, 3/4, 1 along every row.
    row = torch.tensor([[0.0, 1.0], [0.25, 1.0], [0.75, 1.0], [1.0, 1.0]])
    guess = row.repeat(4, 1)[None]
    assert distillation_loss(torch.zeros(1, 8, 2), guess, teacher, everything, (4, 4)) == pytest.approx(0, abs=1e-6)
    wrong = guess.flip(1)
    assert distillation_loss(torch.zeros(1, 8, 2), wrong, teacher, everything, (4, 4)) > 0.05


@pytest.mark.parametrize(
    ("teacher", "classes", "grid"),
    [("pixio_tiny16", 8, (4, 4)), ("vit_tiny_patch16_224", 1, (4, 4)), ("resnet18", None, (2, 2))],
)
def test_only_the_student_learns_from_any_teacher(teacher: str, classes: int | None, grid: tuple[int, int]) -> None:
    weights = "pretrained" if teacher.startswith("pixio") else "random"
    config = dataclasses.replace(TINY, teacher=teacher, teacher_weights=weights, image_size=64, mask_ratio=0.5)
    objective = Distillation(config)
    images = torch.rand(2, 3, 64, 64)
    tokens = objective.teacher(images)
    assert tokens.patch_BhwT.shape[1:3] == grid
    assert (tokens.class_BGT is None) if classes is None else (tokens.class_BGT.shape[1] == classes)  # type: ignore[union-attr]
    objective.module.train()
    visible, masked = split_patches(block_mask(2, (4, 4), 0.5, 2))
    part = ImagePart(images, visible, masked, None, torch.ones(2, 0))
    loss = objective.loss_of(objective.module, images, part)
    loss.backward()
    assert all(parameter.grad is not None for parameter in objective.module.parameters())
    assert not any(parameter.requires_grad for parameter in objective.teacher.encoder.parameters())
    assert all(parameter.grad is None for parameter in objective.teacher.encoder.parameters())


def test_teacher_features_are_those_before_the_norm() -> None:
    images = torch.rand(2, 3, 64, 64)
    encoder = VisionEncoder(EncoderConfig("pixio_tiny16"))
    normalised = encoder(images)
    norm = encoder.backbone.norm
    raw = Distillation(dataclasses.replace(TINY, image_size=64)).teacher(images)
    assert not torch.allclose(raw.patch_BhwT, normalised.patch_tokens, atol=0.1)
    torch.testing.assert_close(norm(raw.patch_BhwT), normalised.patch_tokens)


def test_student_head_is_linear_norm_gelu_linear_on_normalised_tokens() -> None:
    torch.manual_seed(0)
    encoder = create_encoder("pixio_tiny16", 32)
    student = Student(encoder, 24).eval()
    images, everything = torch.rand(2, 3, 32, 32), torch.arange(4).expand(2, -1)
    classes, patches = student(images, everything)
    tokens = encoder.forward_features(images)
    first, norm, _, last = student.head
    hidden = functional.layer_norm(first(tokens), (24,), norm.weight, norm.bias, 1e-6)
    expected = last(functional.gelu(hidden))
    torch.testing.assert_close(torch.cat([classes, patches], dim=1), expected, rtol=1e-4, atol=1e-5)


def test_a_student_nears_its_teacher_and_its_weights_load(source: ImageCache, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, steps=40, checkpoint_minutes=5)
    encoder = train(config, Distillation, source, tmp_path / "run")
    curve = losses(tmp_path / "run")
    assert curve[0] > 0.9  # nothing in common
    assert curve[-1] < 0.5
    assert (tmp_path / "run" / "curve.png").exists()
    student = create_encoder("pixio_tiny16", 32)
    before = student.pos_embed.clone()
    load_encoder_weights(student, encoder, "pixio_tiny16")
    assert not torch.equal(student.pos_embed, before)


def test_distillation_resumes_bit_for_bit_and_refuses_another_teacher(source: ImageCache, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, mask_ratio=0.5, drop_path=0.5)
    train(config, Distillation, source, tmp_path / "whole")

    def stop(step: int, loss: float) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, Distillation, source, tmp_path / "run", on_log=stop)
    other = dataclasses.replace(config, teacher_weights="random")
    with pytest.raises(UserError, match="teacher_hash"):
        train(other, Distillation, source, tmp_path / "run", resume=True)
    train(config, Distillation, source, tmp_path / "run", resume=True)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_mistakes_are_named(source: ImageCache, tmp_path: Path) -> None:
    for change, message in (
        ({"teacher": "resnet81", "image_size": 32}, "Unknown encoder 'resnet81'"),
        ({"teacher": "vit_small_patch14_dinov2", "teacher_weights": "random"}, "divisible by 14"),
        ({"variant": "resnet18"}, "Only Pixio encoders"),
    ):
        with pytest.raises(UserError, match=message):
            train(dataclasses.replace(TINY, **change), Distillation, source, tmp_path / "run")


def test_the_script_distils_on_a_folder(image_folder: Path, tmp_path: Path) -> None:
    settings = {"teacher": "pixio_tiny16", "image_size": 32, "batch_size": 4, "accumulation": 1, "epochs": 1}
    overrides = [f"distillation.{name}={value}" for name, value in settings.items()]
    done = run_script("distill_encoder.py", f"images.path={image_folder}", "images.side=40", *overrides, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "outputs" / "distill_encoder").iterdir()
    assert (folder / "encoder.safetensors").exists()
    assert len(losses(folder)) == 3  # 13 images in batches of 4
    assert str(folder.relative_to(tmp_path)) in done.stdout


def test_a_student_starts_from_given_weights(tmp_path: Path) -> None:
    torch.manual_seed(5)
    trained = create_encoder("pixio_tiny16", 32)
    file = tmp_path / "encoder.safetensors"
    save_encoder(trained, "pixio_tiny16", tmp_path)
    config = dataclasses.replace(TINY, teacher_weights="random", start_from=str(file))
    student = Distillation(config).module.encoder.state_dict()
    for key, value in trained.state_dict().items():
        torch.testing.assert_close(student[key], value, rtol=0, atol=0)

    with pytest.raises(UserError, match="another variant than pixio_small16"):
        Distillation(dataclasses.replace(config, variant="pixio_small16"))


def test_a_teacher_larger_than_memory_is_refused_before_it_is_loaded():
    check_teacher_fits("pixio_vitb16", 400_000_000, "here")
    with pytest.raises(
        UserError,
        match=r"pixio_vitl16 has 1\.2 GB of weights in float32, and 0\.4 GB are free here: .*pixio_vitb16 \(0\.3 GB\)",
    ):
        check_teacher_fits("pixio_vitl16", 400_000_000, "here")
    with pytest.raises(UserError, match="no Pixio encoder would fit"):
        check_teacher_fits("resnet18", 1000, "here")
