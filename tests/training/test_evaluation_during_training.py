"""Evaluation during training: the best checkpoint is kept, the run is what it is without, and resumes exactly."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from pytest import fixture, mark, raises
from safetensors.torch import load_file
from toy_run import CONFIG, logged, losses, make_store, run_training

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore
from pixio_robot.evaluation.record import Episode, EvaluationRecord
from pixio_robot.training.config import EvaluationConfig, TrainerConfig

EVALUATING = dataclasses.replace(CONFIG, evaluate_every=3)
# Of ten episodes, by step; 6 and 9 are best, and 9 the later of them.
SUCCESSES = {3: 2, 6: 7, 9: 7, 12: 5}


def rollouts(evaluated: list[int], stop_at: int | None = None) -> Callable[[Path], EvaluationRecord]:
    """Stand in for real rollouts, which here draw random numbers in this very process."""

    def evaluate(checkpoint: Path) -> EvaluationRecord:
        assert (checkpoint / "model.safetensors").is_file()
        torch.rand(7)
        step = int(checkpoint.parent.name)
        evaluated.append(step)
        if step == stop_at:
            raise KeyboardInterrupt
        episodes = tuple(Episode(seed, seed < SUCCESSES[step], 5, 0.0, 0.1) for seed in range(10))
        return EvaluationRecord(episodes, {"type": "toy"}, None, {}, str(checkpoint), 1.0, 1)

    return evaluate


@fixture
def store(tmp_path: Path) -> DemoStore:
    return make_store(tmp_path / "demos.zarr")


def kept(run_dir: Path) -> dict[str, str]:
    """Return where the links among the checkpoints point; beside what they point at, only the newest but one is there."""
    paths = list((run_dir / "checkpoints").iterdir())
    links = {path.name: path.readlink().name for path in paths if path.is_symlink()}
    newest = sorted(path.name for path in paths if path.name.isdigit())[-2:]
    assert {path.name for path in paths} == {*links, *links.values(), *newest}
    return links


def test_the_best_checkpoint_is_kept_beside_the_last_and_training_is_what_it_is_without(
    store: DemoStore, tmp_path: Path
) -> None:
    plain = run_training(store.path, tmp_path / "plain")
    evaluated: list[int] = []
    model_dir = run_training(store.path, tmp_path / "run", config=EVALUATING, evaluate=rollouts(evaluated))
    assert evaluated == [3, 6, 9, 12]
    assert logged(tmp_path / "run", "success_rate") == {step: count / 10 for step, count in SUCCESSES.items()}
    assert kept(tmp_path / "run") == {"best": "000009", "last": "000012"}
    assert (tmp_path / "run" / "checkpoints" / "best" / "pretrained_model" / "policy_preprocessor.json").is_file()
    assert losses(tmp_path / "run") == losses(tmp_path / "plain")  # dropout drew the same
    first, second = (load_file(path / "model.safetensors") for path in (plain, model_dir))
    assert all(torch.equal(first[key], second[key]) for key in first)


@mark.parametrize("stop_at", [6, 12])
def test_a_run_stopped_while_evaluating_evaluates_again(store: DemoStore, tmp_path: Path, stop_at: int) -> None:
    run_training(store.path, tmp_path / "whole", config=EVALUATING, evaluate=rollouts([]))
    evaluated: list[int] = []
    for stop in (stop_at, None):
        arguments = {"config": EVALUATING, "evaluate": rollouts(evaluated, stop)}
        if stop is None:
            run_training(store.path, tmp_path / "parts", **arguments)
            continue
        with raises(KeyboardInterrupt):
            run_training(store.path, tmp_path / "parts", **arguments)
    steps = list(SUCCESSES)
    assert evaluated == sorted([*steps, stop_at])
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert logged(tmp_path / "parts", "success_rate") == logged(tmp_path / "whole", "success_rate")
    assert kept(tmp_path / "parts") == kept(tmp_path / "whole")


def test_which_checkpoint_is_measured() -> None:
    evaluation, every = EvaluationConfig(), TrainerConfig(evaluate_every=100)
    assert evaluation.chosen_checkpoint(TrainerConfig()) == "last"
    assert evaluation.chosen_checkpoint(every) == "best"
    assert dataclasses.replace(evaluation, checkpoint="last").chosen_checkpoint(every) == "last"
    assert set(evaluation.seeds()).isdisjoint(evaluation.seeds_during_training())


@mark.parametrize(
    ("fields", "every", "message"),
    [
        ({"checkpoint": "bset"}, 10, "Did you mean 'best'"),
        ({"checkpoint": "best"}, 0, "set trainer.evaluate_every"),
        ({"first_seed_during_training": 100040}, 10, "share 10 seeds .*set .*first_seed_during_training=100050"),
        ({"episodes_during_training": 0}, 10, "evaluates nothing"),
    ],
)
def test_evaluations_that_cannot_be(fields: dict, every: int, message: str) -> None:
    with raises(UserError, match=message):
        EvaluationConfig(**fields).chosen_checkpoint(TrainerConfig(evaluate_every=every))
