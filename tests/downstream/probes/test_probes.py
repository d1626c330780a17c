"""Probes find what tokens hold, and measure it by the usual definitions."""

import dataclasses
import math

import pytest
import torch

from pixio_robot.common.errors import UserError
from pixio_robot.downstream.probes.features import ProbeFeatures, check_probed
from pixio_robot.downstream.probes.scenes import ProbeScenes, split_groups
from pixio_robot.downstream.probes.tasks import nearest_rotation, probe, rotation_error_deg
from pixio_robot.encoders import EncoderConfig, EncoderTokens, VisionEncoder
from pixio_robot.encoders.probing.ridge import ridge_path

FRAMES, SIDE, GRID = 240, 32, 4


def random_rotations(count: int, generator: torch.Generator) -> torch.Tensor:
    rotations, _ = torch.linalg.qr(torch.randn(count, 3, 3, generator=generator))
    return rotations * torch.linalg.det(rotations)[:, None, None]


@pytest.fixture(scope="module")
def scenes() -> ProbeScenes:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(FRAMES, GRID, GRID, generator=generator)
    depth = (0.5 + 2 * coarse).repeat_interleave(SIDE // GRID, 1).repeat_interleave(SIDE // GRID, 2)
    return ProbeScenes(
        frames_NHWC=(255 * coarse)
        .repeat_interleave(8, 1)
        .repeat_interleave(8, 2)[..., None]
        .expand(-1, -1, -1, 3)
        .byte(),
        depth_NHW=depth,
        classes_NHW=(depth > 1).long() + (depth > 2.2).long(),
        gripper_position_N3=torch.randn(FRAMES, 3, generator=generator),
        gripper_rotation_N33=random_rotations(FRAMES, generator),
        object_position_N3=torch.full((FRAMES, 3), math.nan),
        group_N=torch.arange(FRAMES) // 4,
        class_names=("near", "middle", "far"),
    )


def tokens_that_know(scenes: ProbeScenes) -> ProbeFeatures:
    """Patch tokens with the logarithm of the depth and each class; class tokens with the gripper's pose."""
    depth = scenes.depth_NHW[:, 4::8, 4::8]
    classes = torch.nn.functional.one_hot(scenes.classes_NHW[:, 4::8, 4::8], 3).float()
    patches = torch.cat([depth.log()[..., None], classes, torch.zeros(FRAMES, GRID, GRID, 8)], dim=-1)
    pose = torch.cat([scenes.gripper_position_N3, scenes.gripper_rotation_N33.flatten(1)], dim=1)
    return ProbeFeatures(EncoderTokens(pose[:, None].half(), patches.half()))


def test_probes_read_out_what_tokens_hold(scenes: ProbeScenes) -> None:
    split = split_groups(scenes.group_N, 0)
    result, guess = probe(tokens_that_know(scenes), scenes, split), probe(None, scenes, split)
    assert math.isnan(result.object_position_cm)  # no frame has one
    assert result.gripper_position_cm < 2  # half a promille of noise comes from float16
    assert guess.gripper_position_cm > 100  # a standard normal's mean distance from its mean is 160 cm
    assert result.gripper_orientation_deg < 2
    assert guess.gripper_orientation_deg > 60
    assert result.depth_delta1 > 0.99
    assert guess.depth_delta1 < 0.7
    assert result.segmentation_miou > 0.99
    assert guess.segmentation_miou < 0.4


def test_poses_are_told_from_what_the_readout_gives(scenes: ProbeScenes) -> None:
    split = split_groups(scenes.group_N, 0)
    known = tokens_that_know(scenes).tokens
    swapped = EncoderTokens(torch.zeros_like(known.global_tokens), known.patch_tokens)  # class tokens know nothing
    assert probe(ProbeFeatures(known, "cls"), scenes, split).gripper_position_cm < 2
    guess = probe(None, scenes, split).gripper_position_cm
    ignorant = probe(ProbeFeatures(swapped, "cls"), scenes, split)
    assert ignorant.gripper_position_cm == pytest.approx(guess, rel=0.01)
    assert ignorant.depth_delta1 > 0.99  # dense probes read patch tokens all the same
    # Side by side they tell all, their mean nothing.
    two = torch.cat([known.global_tokens, -known.global_tokens], dim=1)
    assert probe(ProbeFeatures(known._replace(global_tokens=two), "cls"), scenes, split).gripper_position_cm < 2
    mean = probe(ProbeFeatures(known._replace(global_tokens=two), "cls_mean"), scenes, split)
    assert mean.gripper_position_cm == pytest.approx(guess, rel=0.01)


def test_what_is_only_noise_is_not_better_than_guessing(scenes: ProbeScenes) -> None:
    generator = torch.Generator().manual_seed(1)
    noise = EncoderTokens(
        torch.randn(FRAMES, 2, 12, generator=generator), torch.randn(FRAMES, GRID, GRID, 12, generator=generator)
    )
    split = split_groups(scenes.group_N, 0)
    result, guess = probe(ProbeFeatures(noise), scenes, split), probe(None, scenes, split)
    assert result.gripper_position_cm == pytest.approx(guess.gripper_position_cm, rel=0.1)
    assert result.depth_delta1 == pytest.approx(guess.depth_delta1, abs=0.05)


@pytest.mark.parametrize("samples", [20, 200])
def test_ridge_is_the_textbook_solution_in_both_forms(samples: int) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(samples, 50, generator=generator) * torch.linspace(0.1, 3, 50) + 2
    targets = torch.randn(samples, 2, generator=generator)
    x = ((features - features.mean(0)) / features.std(0)).double()
    y = (targets - targets.mean(0)).double()
    smaller = min(samples, 50)
    penalty = 0.1 * (x.square().sum() / smaller)  # the fifth of PENALTIES
    expected = x @ torch.linalg.solve(x.T @ x + penalty * torch.eye(50), x.T @ y) + targets.mean(0).double()
    torch.testing.assert_close(ridge_path(features, targets)[4](features).double(), expected, rtol=1e-3, atol=1e-4)


def test_groups_are_never_split_and_seeds_differ() -> None:
    group_N = torch.arange(400) // 4
    split = split_groups(group_N, 0)
    assert torch.cat(list(split)).sort().values.equal(torch.arange(400))
    groups = [set(group_N[rows].tolist()) for rows in split]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    assert [len(rows) for rows in split] == [240, 60, 100]
    assert not split.test.equal(split_groups(group_N, 1).test)
    with pytest.raises(UserError, match="too few"):
        split_groups(torch.zeros(100, dtype=torch.long), 0)


def test_measures_follow_their_definitions() -> None:
    angle = torch.tensor(0.3)
    turned = torch.tensor([[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0], [0, 0, 1]])
    error = rotation_error_deg(turned[None], torch.eye(3)[None])
    assert error.item() == pytest.approx(math.degrees(0.3), rel=1e-4)
    rotations = random_rotations(5, torch.Generator().manual_seed(0))
    columns = rotations.transpose(1, 2)[:, :2].flatten(1)
    torch.testing.assert_close(nearest_rotation(3 * columns), rotations)


def test_an_encoder_whose_patches_do_not_divide_the_label_grid_is_refused_before_all_work() -> None:
    check_probed(VisionEncoder(EncoderConfig("pixio_tiny16", weights="random")), 128)
    with pytest.raises(UserError, match=r"6×6 patches, .* power of two"):
        check_probed(VisionEncoder(EncoderConfig("pixio_tiny16", weights="random")), 96)
    with pytest.raises(UserError, match=r"6×6 patches, .* power of two"):
        check_probed(VisionEncoder(EncoderConfig("pixels")), 96)


def test_frames_that_the_label_grid_does_not_divide_are_refused(scenes: ProbeScenes) -> None:
    with pytest.raises(UserError, match="multiple of 32"):
        dataclasses.replace(scenes, depth_NHW=torch.ones(FRAMES, 40, 40))
