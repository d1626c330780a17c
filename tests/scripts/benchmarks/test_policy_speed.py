"""Our training beside LeRobot's own: both really train, what is recorded adds up, and wrong input is named."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

# The toy environment must be importable here and in worker processes, which inherit this path.
import toy_plugin  # noqa: F401 (registers the environment)  # pyright: ignore[reportMissingImports]
from jobs import composed
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class
from lerobot.utils.import_utils import register_third_party_plugins
from policy_speed.clock import STAGES, StepClock
from policy_speed.comparison import Comparison, chosen, compare_speed
from policy_speed.job import PolicyBenchmark, measure_speed, measure_success
from policy_speed.lerobot_training import LeRobotTraining, lerobot_dataset, lerobot_policy_config
from policy_speed.our_training import OurTraining, encode_demonstrations
from policy_speed.tables import print_speed, print_success
from rich.console import Console
from torch import nn
from toy_run import CAMERAS, CONFIG, ENCODER, POLICY, make_store

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore
from pixio_robot.evaluation.checkpoints import open_checkpoint
from pixio_robot.evaluation.record import EvaluationRecord
from pixio_robot.training.config import DemosConfig, TrainerConfig

ACT = Comparison(
    "act",
    POLICY,
    {"type": "act", "chunk_size": 4, "n_action_steps": 2, "dim_model": 16, "n_heads": 2, "dim_feedforward": 16},
)
DIFFUSION = Comparison(
    "diffusion",
    {"type": "pixio_diffusion", "horizon": 4, "n_action_steps": 2, "down_dims": [16, 16]},
    {"type": "diffusion", "n_obs_steps": 1, "horizon": 4, "n_action_steps": 2, "down_dims": [16, 16]}
    | {"drop_n_last_frames": 0},
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> DemoStore:
    return make_store(tmp_path_factory.mktemp("demos") / "toy.zarr")


@pytest.fixture(scope="module")
def dataset(store: DemoStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lerobot_dataset(store, tmp_path_factory.mktemp("lerobot"), use_videos=False)


def benchmark_in(folder: Path, store: DemoStore) -> PolicyBenchmark:
    return PolicyBenchmark(
        comparisons=[DIFFUSION],
        encoder=ENCODER,
        env={"type": "pixio_robosuite", "task": "Lift"},
        trainer=CONFIG,
        demos=DemosConfig("store", str(store.path)),
        use_videos=False,
        threads=1,
        seed=0,
        output_root=folder,
        output=folder,
    )


def trainable(policy: nn.Module) -> dict[str, torch.Tensor]:
    return {name: weights.detach().clone() for name, weights in policy.named_parameters() if weights.requires_grad}


def changed(policy: nn.Module, before: dict[str, torch.Tensor]) -> float:
    """Return the share of weight tensors that moved."""
    now = dict(policy.named_parameters())
    return sum(not torch.equal(now[name], weights) for name, weights in before.items()) / len(before)


def test_both_sides_train_and_the_ratio_is_theirs(store: DemoStore, dataset: Path, tmp_path: Path) -> None:
    cache, seconds = encode_demonstrations(store, ENCODER, tmp_path / "features")
    ours = OurTraining(store, ENCODER, ACT.ours, CONFIG, seed=0, cache=cache)
    lerobot = LeRobotTraining(dataset, ACT.lerobot, CONFIG.batch_size, seed=0, output_dir=tmp_path / "lerobot")
    before = trainable(ours.policy), trainable(lerobot.policy)
    rounds: list[None] = []
    result = compare_speed(ours, lerobot, rounds=2, our_steps=2, lerobot_steps=1, on_round=lambda: rounds.append(None))
    assert seconds > 0
    assert len(rounds) == 2
    assert lerobot.steps_done == 3  # one to warm up
    assert result["action_horizon"] == 4
    for side, policy, old in zip(("ours", "lerobot"), (ours.policy, lerobot.policy), before, strict=True):
        measured = result[side]
        assert math.isfinite(measured["loss"])
        assert changed(policy, old) > 0.8
        assert len(measured["rounds"]) == 2
        assert all(measured["stages"][stage] > 0 for stage in STAGES)
        assert sum(measured["stages"].values()) == pytest.approx(measured["seconds_per_step"])
        assert measured["samples_per_second"] == pytest.approx(CONFIG.batch_size / measured["seconds_per_step"])
    assert result["ours"]["trainable_parameters"] < result["ours"]["parameters"]  # the encoder is frozen
    expected = result["ours"]["samples_per_second"] / result["lerobot"]["samples_per_second"]
    assert result["ratio"] == pytest.approx(expected)
    assert result["ratio_loading_hidden"] < result["ratio"]
    assert "forward" not in vars(ours.policy)  # the clock has let go of it
    # Its own checkpoint loads as any other of LeRobot's.
    checkpoint = lerobot.save()
    reloaded = get_policy_class("act").from_pretrained(checkpoint, config=open_checkpoint(checkpoint))
    torch.testing.assert_close(reloaded.state_dict(), lerobot.policy.state_dict())


def test_a_benchmark_leaves_a_record_and_prints_it(
    store: DemoStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet = Console(quiet=True)
    record = measure_speed(benchmark_in(tmp_path, store), quiet, rounds=1, our_steps=1, lerobot_steps=1)
    assert json.loads((tmp_path / "speed.json").read_text()) == json.loads(json.dumps(record))
    result = record["comparisons"]["diffusion"]
    assert result["types"] == {"ours": "pixio_diffusion", "lerobot": "diffusion"}
    assert all(math.isfinite(result[side]["loss"]) for side in ("ours", "lerobot"))
    assert 0 < result["ratio_with_caching"] < result["ratio"]
    assert record["frames"] == store.num_steps
    assert record["versions"]["torch"]
    print_speed(record, Console(width=100))
    printed = capsys.readouterr().out
    assert all(stage in printed for stage in STAGES)
    assert "1 of" in printed


def test_stages_are_told_apart() -> None:
    class Ticking(StepClock):
        ticks = 0

        def _now(self) -> float:
            return float(self.ticks)

    clock = Ticking()

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self) -> torch.Tensor:
            clock.ticks += 30
            return self.weight.sum()

    model = Model()

    class Slow(torch.optim.SGD):
        def step(self, closure: None = None) -> None:
            clock.ticks += (
                5000  # and no more: where SGD's own step has been hooked before, hooks would run within hooks
            )

    optimizer = Slow(model.parameters())
    with clock.watching(model):  # type: ignore[arg-type]
        for _ in range(2):
            clock.begin_step()
            clock.ticks += 1
            clock.mark("loading")
            clock.ticks += 2
            loss = model.forward()
            clock.ticks += 400
            loss.backward()
            optimizer.step()
            clock.ticks += 60000
    assert clock.steps[0] == {
        "loading": 1,
        "preprocessing": 2,
        "forward": 30,
        "backward": 400,
        "optimizer": 5000,
        "rest": 60000,
    }
    model.forward()
    optimizer.step()
    assert clock.steps[1]["rest"] == 0  # nothing is counted once it stops watching


def test_the_config_compares_like_with_like() -> None:
    fields = composed("benchmark_policies")
    register_third_party_plugins()
    comparisons = chosen(fields["compare"], fields["comparisons"])
    assert len(comparisons) == len(fields["comparisons"])
    for comparison in comparisons:
        ours: Any = PreTrainedConfig.get_choice_class(comparison.ours["type"])(
            **{name: value for name, value in comparison.ours.items() if name != "type"}
        )
        lerobot: Any = lerobot_policy_config(comparison.lerobot)
        assert len(lerobot.action_delta_indices) == len(ours.action_delta_indices)
        for name in ("n_obs_steps", "n_action_steps"):
            assert getattr(lerobot, name) == getattr(ours, name)
        sizes = ("dim_model", "n_encoder_layers", "use_vae", "down_dims", "diffusion_step_embed_dim")
        same = [str(getattr(lerobot, name)) == str(getattr(ours, name)) for name in sizes if hasattr(ours, name)]
        assert all(same) if "same" in comparison.name else not any(same)
    TrainerConfig(**fields["trainer"])


def test_success_is_printed_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    ours = {"steps": 9000, "samples": 576000, "seconds": 590.0, "success_rate": 0.96, "ci95": [0.865, 0.989]}
    lerobot = {"steps": 500, "samples": 4000, "seconds": 600.0, "success_rate": 0.0, "ci95": [0.0, 0.071]}
    result = {"types": {"ours": "pixio_act", "lerobot": "act"}, "ours": ours, "lerobot": lerobot, "p_value": 1e-9}
    record = {"minutes": 10, "threads": 2, "cores": 2, "comparisons": {"act": result}}
    print_success(record, Console(width=100))
    printed = capsys.readouterr().out
    assert "96 %" in printed
    assert "0–7 %" in printed
    assert "1e-09" in printed


@pytest.mark.slow  # trains both sides
def test_both_are_rolled_out_on_the_same_seeds_after_the_same_time(tmp_path: Path) -> None:
    sizes: dict[str, tuple[int, int]] = dict.fromkeys(CAMERAS, (32, 32))
    store = make_store(tmp_path / "demos.zarr", sizes=sizes, state_size=2, action_size=2)
    benchmark = dataclasses.replace(
        benchmark_in(tmp_path, store), comparisons=[ACT], env={"type": "pixio_toy", "episode_length": 4}
    )
    seeds = [100000, 100001, 100002]
    record = measure_success(benchmark, Console(quiet=True), minutes=0, lerobot_batch_size=2, seeds=seeds, workers=1)
    assert json.loads((tmp_path / "success.json").read_text()) == json.loads(json.dumps(record))
    result = record["comparisons"]["act"]
    assert result["ours"]["steps"] == 1  # nothing was left of the budget
    assert result["lerobot"]["seconds"] >= result["ours"]["seconds"]
    assert result["lerobot"]["samples"] == 2 * result["lerobot"]["steps"] > 0
    assert 0 < result["p_value"] <= 1
    for side in ("ours", "lerobot"):
        evaluation = EvaluationRecord.load(Path(result[side]["checkpoint"]).parents[2] / "evaluation.json")
        assert [episode.seed for episode in evaluation.episodes] == seeds
        assert result[side]["success_rate"] == evaluation.success_rate
        assert result[side]["ci95"] == list(evaluation.ci95)
    print_success(record, Console(quiet=True))


def test_wrong_input_is_named_before_anything_slow(store: DemoStore, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Did you mean 'act'\?"):
        chosen(["atc"], {"act": {"ours": ACT.ours, "lerobot": ACT.lerobot}})
    benchmark = benchmark_in(tmp_path, store)
    misspelt = Comparison("act", ACT.ours, {"type": "act", "chunk_sise": 4})
    frozen = dataclasses.replace(ENCODER, mode="finetune")
    for wrong, message in (
        (dataclasses.replace(benchmark, comparisons=[misspelt]), "chunk_sise"),
        (dataclasses.replace(benchmark, encoder=frozen), "encoder.mode=frozen"),
    ):
        with pytest.raises(UserError, match=message):
            measure_speed(wrong, Console(quiet=True), rounds=1, our_steps=1, lerobot_steps=1)
    assert not list(tmp_path.iterdir())
