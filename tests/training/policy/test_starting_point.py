"""Training that starts from a checkpoint: its policy and weights, in the same mode of the encoder or another."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.policies import PreTrainedPolicy
from lerobot.policies.factory import make_policy_config
from policy_speed.lerobot_training import LeRobotTraining, lerobot_dataset
from rich.console import Console
from toy_job import make_demonstrations, toy_job
from toy_run import CAMERAS, ENCODER, POLICY, logged, make_store, run_training

from pixio_robot.common.errors import UserError
from pixio_robot.common.worlds import RUN_FILE
from pixio_robot.demos import DemoStore
from pixio_robot.encoders import EncoderConfig, VisionEncoder
from pixio_robot.encoders.adapters import base_weights
from pixio_robot.images.preprocessing import frames_to_images
from pixio_robot.training.announcements import say_start
from pixio_robot.training.job import run_policy_job
from pixio_robot.training.policy.building import build_policy, policy_config_from
from pixio_robot.training.policy.starting_point import described_by, load_starting_point

SHIPPED = EncoderConfig("pixio_tiny16")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> DemoStore:
    return make_store(tmp_path_factory.mktemp("demos") / "toy.zarr")


@pytest.fixture(scope="module", params=[ENCODER, SHIPPED], ids=["random", "shipped"])
def checkpoint(request: pytest.FixtureRequest, store: DemoStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frozen policy, its weights in the checkpoint (`random`) or referred to (`shipped`)."""
    return run_training(store.path, tmp_path_factory.mktemp("run") / "run", encoder=request.param)


def started(checkpoint: Path, store: DemoStore, **encoder_changes: Any) -> PreTrainedPolicy:
    description, encoder = described_by(checkpoint, {}, encoder_changes)
    policy, _ = build_policy(policy_config_from(description, encoder, store), store)
    load_starting_point(policy, checkpoint)
    return policy.eval()


def actions(policy: PreTrainedPolicy, store: DemoStore) -> torch.Tensor:
    steps = range(3)
    batch = {
        key: frames_to_images(torch.from_numpy(store.read(key, steps.start, steps.stop))) for key in store.image_keys
    }
    batch["observation.state"] = torch.from_numpy(store.read("observation.state", steps.start, steps.stop))
    with torch.no_grad():
        return policy.cpu().predict_action_chunk(batch)


@pytest.mark.parametrize("mode", ["frozen", "finetune", "lora"])
def test_a_started_policy_acts_as_the_checkpoint_does(checkpoint: Path, store: DemoStore, mode: str) -> None:
    description, encoder = described_by(checkpoint, {"dropout": 0.0}, {})
    assert description == {**POLICY, "dropout": 0.0}
    assert encoder.name == "pixio_tiny16"
    before, _ = build_policy(policy_config_from(description, encoder, store), store)
    policy = started(checkpoint, store, mode=mode)
    expected = type(policy).from_pretrained(checkpoint)
    torch.testing.assert_close(actions(policy, store), actions(expected, store), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(actions(before.eval(), store), actions(expected, store), atol=1e-3)
    trains = any(parameter.requires_grad for parameter in policy.get_submodule("encoder").parameters())
    assert trains == (mode != "frozen")


def test_what_does_not_fit_is_said(checkpoint: Path, store: DemoStore, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="do not fit a policy for these demonstrations"):
        started(checkpoint, make_store(tmp_path / "other.zarr", action_size=4))
    one_camera = make_store(tmp_path / "one.zarr", sizes={CAMERAS[0]: (32, 48)})
    with pytest.raises(UserError, match="do not fit a policy for these demonstrations"):
        started(checkpoint, one_camera)
    with pytest.raises(UserError, match="There is no checkpoint folder"):
        described_by(tmp_path / "nowhere", {}, {})


def test_a_policy_of_lerobots_own_is_refused(store: DemoStore, tmp_path: Path) -> None:
    act = {"type": "act", "chunk_size": 4, "n_action_steps": 2, "dim_model": 16, "n_heads": 2, "dim_feedforward": 16}
    training = LeRobotTraining(lerobot_dataset(store, tmp_path, use_videos=False), act, 2, 0, tmp_path / "act")
    with pytest.raises(UserError, match="'act', which has its own image encoder"):
        described_by(training.save(), {}, {})


def test_other_normalisation_is_refused(store: DemoStore, checkpoint: Path, tmp_path: Path) -> None:
    config = make_policy_config("pixio_act", normalization_mapping={"STATE": "MIN_MAX", "ACTION": "MIN_MAX"})
    folder = tmp_path / "edited"
    folder.mkdir()
    for file in checkpoint.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config.input_features, config.output_features = (
        getattr(policy_config_from(POLICY, ENCODER, store), f"{side}_features") for side in ("input", "output")
    )
    config.save_pretrained(folder)
    with pytest.raises(UserError, match="train it on with lerobot-train"):
        described_by(folder, {}, {})


@pytest.mark.parametrize("trained", [{"fps": 7}, {"env": {"type": "toy", "fps": 7}}], ids=str)
def test_another_rate_is_said(trained: dict[str, Any], store: DemoStore, tmp_path: Path) -> None:
    said = io.StringIO()
    (tmp_path / RUN_FILE).write_text(json.dumps(trained))
    say_start(tmp_path, store, Console(file=said, width=400))
    assert f"learnt at 7 Hz, and the demonstrations have {store.fps} steps a second" in said.getvalue()
    (tmp_path / RUN_FILE).write_text(json.dumps({"fps": store.fps}))
    say_start(tmp_path, store, Console(file=said, width=400))
    assert said.getvalue().count("learnt at") == 1


def test_several_tasks_are_refused_by_name_where_there_was_one(checkpoint: Path, store: DemoStore) -> None:
    description, encoder = described_by(checkpoint, {"tasks": [*dict.fromkeys(store.episode_tasks), "dance"]}, {})
    policy, _ = build_policy(policy_config_from(description, encoder, store), store)
    with pytest.raises(UserError, match=r"was trained on one task, .*'dance'.*condition_on_task=false"):
        load_starting_point(policy, checkpoint)


def test_the_main_job_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    job = toy_job(make_demonstrations(tmp_path / "demos.zarr").path, tmp_path / "first")
    trainer = dataclasses.replace(job.trainer, evaluate_every=0, steps=40, checkpoint_every=40, average_decay=0.5)
    job = dataclasses.replace(job, trainer=trainer, evaluation=dataclasses.replace(job.evaluation, episodes=0))
    run_policy_job(job, console=Console(quiet=True))
    (first,) = (tmp_path / "first" / "train_policy").iterdir()
    checkpoint = first / "checkpoints" / "last" / "pretrained_model"
    description, encoder = described_by(checkpoint, {}, {"mode": "finetune"})
    job = dataclasses.replace(
        job,
        policy=description,
        encoder=encoder,
        output_root=str(tmp_path / "second"),
        start_from=str(checkpoint),
    )
    run_policy_job(job, console=Console(quiet=True))
    (second,) = (tmp_path / "second" / "train_policy").iterdir()
    # The same batch and the same seeds: from new weights the first loss would be the same, too.
    assert logged(second, "loss")[1] < 0.95 * logged(first, "loss")[1]


@pytest.fixture(scope="module")
def adapted(store: DemoStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy whose encoder was trained by adapters, which have left their start."""
    encoder = dataclasses.replace(SHIPPED, mode="lora", lora_rank=2)
    return run_training(store.path, tmp_path_factory.mktemp("run") / "lora", encoder=encoder, cached=False)


@pytest.mark.parametrize("changes", [{"mode": "frozen"}, {"mode": "finetune"}, {"lora_rank": 3}, {}], ids=str)
def test_adapters_are_merged_where_the_policy_has_none_or_others(
    adapted: Path, store: DemoStore, changes: dict[str, Any]
) -> None:
    policy = started(adapted, store, **changes)
    expected = type(policy).from_pretrained(adapted)
    torch.testing.assert_close(actions(policy, store), actions(expected, store), rtol=1e-4, atol=1e-5)
    shipped = torch.cat([value.flatten() for value in VisionEncoder(SHIPPED).backbone.parameters()])
    own = torch.cat([value.flatten() for value in base_weights(policy.get_submodule("encoder.backbone")).values()])
    assert torch.equal(own, shipped) == (not changes)
