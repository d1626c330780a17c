"""Encoders that train, weights by reference, and augmented copies, through the training loop."""

import dataclasses
import math
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lerobot_policy_pixio.modeling_pixio_act import PixioACTPolicy
from pytest import approx, fixture, mark, raises
from safetensors.torch import load_file, save_file
from toy_run import CAMERAS, CONFIG, ENCODER, POLICY, losses, make_store, run_training

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore
from pixio_robot.deployment.artifact import load_artifact
from pixio_robot.deployment.export.exporter import export_policy
from pixio_robot.deployment.export.lerobot_policy import open_policy
from pixio_robot.encoders import EncoderConfig, VisionEncoder, weights_hash
from pixio_robot.encoders.backbones import build_backbone
from pixio_robot.images.preprocessing import frames_to_images
from pixio_robot.training.config import TrainerConfig
from pixio_robot.training.data.augmentation import augment
from pixio_robot.training.data.batches import TrainingBatches, Windows
from pixio_robot.training.data.feature_cache import cache_features
from pixio_robot.training.policy.building import build_policy, policy_config_from
from pixio_robot.training.policy.parameter_groups import encoder_factor, parameter_groups

FINETUNE = EncoderConfig("pixio_tiny16", "random", "finetune")


@fixture
def store(tmp_path: Path) -> DemoStore:
    return make_store(tmp_path / "demos.zarr")


class _Policy(torch.nn.Module):
    def __init__(self, encoder: VisionEncoder) -> None:
        super().__init__()
        self.encoder, self.head = encoder, torch.nn.Linear(192, 3)


def rates(groups: list[dict], policy: _Policy) -> dict[str, tuple[float, float]]:
    """Return learning rate and weight decay by parameter name."""
    of = {id(parameter): (group["lr"], group["weight_decay"]) for group in groups for parameter in group["params"]}
    assert len(of) == sum(len(group["params"]) for group in groups)  # none twice
    return {name: of[id(parameter)] for name, parameter in policy.named_parameters() if id(parameter) in of}


def test_layers_learn_slower_the_earlier_they_are() -> None:
    policy = _Policy(VisionEncoder(FINETUNE))
    config = TrainerConfig(learning_rate=1e-3, weight_decay=0.1, encoder_layer_decay=0.5)
    got = rates(parameter_groups(policy, config), policy)
    assert got.keys() == dict(policy.named_parameters()).keys()
    assert got["head.weight"] == (1e-3, 0.1)
    # The stem and six blocks are seven layers, each with half the rate of the next; the final norm is of the last.
    assert got["encoder.backbone.norm.weight"] == approx((1e-4, 0.0))
    assert got["encoder.backbone.blocks.5.attn.qkv.weight"] == approx((1e-4, 0.1))
    assert got["encoder.backbone.blocks.0.mlp.fc1.weight"] == approx((1e-4 / 2**5, 0.1))
    assert got["encoder.backbone.pos_embed"] == approx((1e-4 / 2**6, 0.0))
    absolute = parameter_groups(policy, dataclasses.replace(config, encoder_learning_rate=0.02))
    assert rates(absolute, policy)["encoder.backbone.norm.weight"][0] == approx(0.02)


def test_only_adapters_and_the_policy_are_in_the_groups() -> None:
    policy = _Policy(VisionEncoder(dataclasses.replace(FINETUNE, mode="lora")))
    got = rates(parameter_groups(policy, TrainerConfig(learning_rate=1e-3)), policy)
    assert {name for name in got if "lora_" not in name} == {"head.weight", "head.bias"}
    assert got["encoder.backbone.blocks.4.attn.qkv.lora_A.default.weight"][0] == approx(1e-3 * 0.75)
    frozen = _Policy(VisionEncoder(ENCODER))
    assert len(parameter_groups(frozen, TrainerConfig())) == 1


def test_the_encoders_schedule_waits_then_warms_up_and_follows_the_cosine() -> None:
    config = TrainerConfig(steps=100, warmup_steps=10, encoder_frozen_steps=30)
    assert encoder_factor(29, config) == 0.0
    cosine = 0.5 * (1 + math.cos(math.pi * 25 / 90))
    assert encoder_factor(35, config) == approx(0.6 * cosine)
    assert encoder_factor(55, config) == approx(0.5)
    assert encoder_factor(4, TrainerConfig(steps=100, warmup_steps=10)) == approx(0.5)


@mark.parametrize("frozen_steps", [7, 12])
def test_an_encoder_held_frozen_moves_only_once_released(store: DemoStore, tmp_path: Path, frozen_steps: int) -> None:
    config = dataclasses.replace(CONFIG, encoder_frozen_steps=frozen_steps, average_decay=0.0, checkpoint_every=12)
    model_dir = run_training(store.path, tmp_path / "run", cached=False, encoder=FINETUNE, config=config)
    (state,) = (model_dir.parent / "state").iterdir()
    steps = {value.item() for name, value in load_file(state).items() if name.startswith("step.")}
    # The policy's own weights took 12 steps, the encoder's those since its release.
    assert steps == {12.0, 12.0 - frozen_steps}


@mark.parametrize(("mode", "frozen_steps"), [("finetune", 4), ("lora", 2)])
def test_training_the_encoder_resumes_exactly(
    store: DemoStore, tmp_path: Path, mode: Literal["finetune", "lora"], frozen_steps: int
) -> None:
    """From a checkpoint at step 3, with the encoder still held and already released."""
    encoder = EncoderConfig("pixio_tiny16", "pretrained", mode, lora_rank=2)
    config = dataclasses.replace(CONFIG, steps=6, checkpoint_every=3, encoder_frozen_steps=frozen_steps)
    arguments = {"cached": False, "encoder": encoder, "config": config}
    whole = run_training(store.path, tmp_path / "whole", **arguments)
    with raises(KeyboardInterrupt):
        run_training(store.path, tmp_path / "parts", interrupt_at=4, **arguments)
    parts = run_training(store.path, tmp_path / "parts", **arguments)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    weights, again = load_file(whole / "model.safetensors"), load_file(parts / "model.safetensors")
    if torch.cuda.is_available():  # sums over a batch have no fixed order there
        torch.testing.assert_close(again, weights, rtol=1e-3, atol=1e-4)
    else:
        assert all(torch.equal(weights[key], again[key]) for key in weights)
    assert ("encoder.weights_reference" in weights) == (mode == "lora")
    assert ("encoder.backbone.cls_token" in weights) == (mode == "finetune")


def test_a_policy_with_adapters_is_exported_merged(store: DemoStore, tmp_path: Path) -> None:
    encoder = EncoderConfig("pixio_tiny16", "pretrained", "lora", lora_rank=2)
    config = dataclasses.replace(CONFIG, steps=3, encoder_learning_rate=0.05)
    model_dir = run_training(store.path, tmp_path / "run", cached=False, encoder=encoder, config=config)
    steps = np.array([2, 9, 17])
    keys = [*CAMERAS, "observation.state"]
    observed = {key: torch.from_numpy(store.read_steps(key, steps)) for key in keys}
    export_policy(model_dir, store, tmp_path / "policy.pt")
    module, metadata = load_artifact(tmp_path / "policy.pt")
    opened = open_policy(model_dir)
    unmerged = dataclasses.replace(opened, policy=PixioACTPolicy.from_pretrained(model_dir).cpu())
    assert unmerged.policy.encoder.config.mode == "lora"
    torch.testing.assert_close(module(observed), unmerged.eager(observed), rtol=1e-4, atol=1e-4)
    shipped = VisionEncoder(EncoderConfig("pixio_tiny16"))
    assert metadata["encoder"]["weights_hash"] not in (None, weights_hash(shipped.backbone))


def test_a_policy_on_a_torchscript_encoder(store: DemoStore, tmp_path: Path) -> None:
    """From the cache to the loaded checkpoint, which refers to the file; this one has no parameters at all."""
    torch.jit.script(torch.nn.AvgPool2d(16)).save(tmp_path / "encoder.pt")
    encoder = EncoderConfig("torchscript", str(tmp_path / "encoder.pt"))
    model_dir = run_training(store.path, tmp_path / "run", encoder=encoder, config=dataclasses.replace(CONFIG, steps=2))
    policy = PixioACTPolicy.from_pretrained(model_dir)
    assert policy.encoder.grid(32, 48) == (2, 3)
    torch.jit.script(torch.nn.MaxPool2d(16)).save(tmp_path / "encoder.pt")
    with raises(UserError, match="other weights of torchscript"):
        PixioACTPolicy.from_pretrained(model_dir)


def test_a_run_on_other_encoder_weights_is_not_resumed(store: DemoStore, tmp_path: Path) -> None:
    file = tmp_path / "encoder.safetensors"
    for step in (6, 12):
        save_file(build_backbone("pixio_tiny16", "random").state_dict(), file)
        arguments = {
            "encoder": EncoderConfig("pixio_tiny16", str(file)),
            "config": dataclasses.replace(CONFIG, steps=step),
        }
        if step == 6:
            model_dir = run_training(store.path, tmp_path / "run", **arguments)
            # Without the encoder, 2.9 M parameters, the policy is small.
            assert (model_dir / "model.safetensors").stat().st_size < 1_000_000
    with raises(UserError, match="other settings .encoder weights"):
        run_training(store.path, tmp_path / "run", **arguments)


def test_augmented_copies_are_cached_beside_the_frames(store: DemoStore, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = VisionEncoder(ENCODER)
    plain = cache_features(store, encoder, CAMERAS, tmp_path / "features")
    progress: list[tuple[int, int]] = []

    def interrupt(done: int, total: int) -> None:
        progress.append((done, total))
        if done == 3 * 18:
            raise KeyboardInterrupt

    with raises(KeyboardInterrupt):
        cache_features(store, encoder, CAMERAS, tmp_path / "features", augmented_copies=2, on_progress=interrupt)
    assert progress[0] == (36, 3 * 36)  # the frames themselves were there
    progress.clear()
    cache = cache_features(
        store,
        encoder,
        CAMERAS,
        tmp_path / "features",
        augmented_copies=2,
        on_progress=lambda *now: progress.append(now),
    )
    assert progress[0] == (54, 3 * 36)
    steps = np.array([17, 0, 6])
    assert torch.equal(cache.read(CAMERAS[0], steps, np.zeros(3, int)), plain.read(CAMERAS[0], steps))
    first, second = (cache.read(CAMERAS[0], steps, np.full(3, copy)) for copy in (1, 2))
    assert not torch.allclose(first, second)
    assert not torch.allclose(first, plain.read(CAMERAS[0], steps))
    mixed = cache.read(CAMERAS[0], steps, np.array([2, 0, 1]))
    assert torch.equal(mixed[0], second[0])
    assert torch.equal(mixed[2], first[2])
    # Steps 5 and 6 are of the second episode; read alone they are changed as they were in their batch.
    frames = frames_to_images(torch.from_numpy(store.read_steps(CAMERAS[0], np.array([6]))))
    expected = encoder(augment(frames, [1], [1], 1, CAMERAS[0])).flatten()
    torch.testing.assert_close(first[2:], expected, rtol=2e-3, atol=2e-3)


def test_copies_are_drawn_by_seed_and_step(store: DemoStore, tmp_path: Path) -> None:
    encoder = VisionEncoder(ENCODER)
    cache = cache_features(store, encoder, CAMERAS, tmp_path / "features", augmented_copies=3)
    one, same = (TrainingBatches(store, CAMERAS, Windows(4), 18, seed=5, cache=cache) for _ in range(2))
    key = "observation.tokens.front"
    tokens, copies = one.batch(3)[key], []
    same.batch(0)
    assert torch.equal(same.batch(3)[key], tokens)
    for step, row in zip(one.batch(3)["index"].tolist(), tokens, strict=True):
        every = [cache.read(CAMERAS[0], np.array([step]), np.array([copy]))[0] for copy in range(4)]
        copies.append([torch.equal(row, candidate) for candidate in every].index(True))
    assert set(copies) == {0, 1, 2, 3}
    other = TrainingBatches(store, CAMERAS, Windows(4), 18, seed=5, cache=cache).batch(4)
    assert not torch.equal(other[key][other["index"].argsort()], tokens[one.batch(3)["index"].argsort()])


def test_statistics_are_of_the_episodes_that_are_used(store: DemoStore) -> None:
    _, processors = build_policy(policy_config_from(POLICY, ENCODER, store), store, num_episodes=2)
    actions = store.read("action", 0, 5 + 6)
    batch = {"action": torch.from_numpy(actions), "observation.state": torch.zeros(11, 5)}
    normalised = processors[0](batch)["action"].cpu()
    torch.testing.assert_close(normalised.mean(dim=0), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(normalised.std(dim=0, correction=0), torch.ones(3), rtol=0, atol=1e-4)
    assert store.statistics(2)[CAMERAS[0]]["count"] == [11]
