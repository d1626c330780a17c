"""Two processes train as one does, in every precision; this file itself is run as the two processes."""

import contextlib
import dataclasses
import functools
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch
from forked_scripts import run_two_processes
from rich.console import Console
from safetensors.torch import load_file
from toy_job import make_demonstrations, toy_job
from toy_run import CONFIG, DIFFUSION, losses, make_store, run_training

from pixio_robot.common.errors import UserError
from pixio_robot.common.signals import StoppedError
from pixio_robot.demos import DemoStore
from pixio_robot.encoders import EncoderConfig
from pixio_robot.engine.processes import join_processes
from pixio_robot.evaluation.record import Episode, EvaluationRecord
from pixio_robot.training import job as job_module
from pixio_robot.training.data.batches import TrainingBatches
from pixio_robot.training.job import run_policy_job
from pixio_robot.training.trainer import join_training_processes

# Seven windows: parts of four and three. Without dropout nothing is drawn at random within a step.
TOGETHER = dataclasses.replace(CONFIG, batch_size=7, steps=6, checkpoint_every=3)
FINETUNE = dataclasses.replace(TOGETHER, encoder_frozen_steps=2, steps=4)
TRAINED_ENCODER = EncoderConfig("pixio_tiny16", weights="random", mode="finetune")

# float32 sums of gradients and losses are taken in another order by two processes than by one (relative 6e-8 each);
# six steps of Adam keep that below this.
TOLERANCE = 1e-6


def run_all(store: Path, folder: Path, *, interrupt_at: int | None = None) -> None:
    """Do the runs that are compared; of `stopped`, only the first steps if it is to be interrupted."""
    for name, config, arguments in (
        ("plain", TOGETHER, {"dropout": 0.0}),
        ("finetune", FINETUNE, {"dropout": 0.0, "cached": False, "encoder": TRAINED_ENCODER}),
    ):
        run_training(store, folder / name, config=config, **arguments)
    with nothing_drawn():
        run_training(store, folder / "vae", config=TOGETHER, dropout=0.0, use_vae=True)
        unmasked = DIFFUSION | {"do_mask_loss_for_padding": False}
        run_training(store, folder / "unmasked", config=TOGETHER, policy=unmasked)
        run_training(store, folder / "masked", config=TOGETHER, policy=DIFFUSION | {"do_mask_loss_for_padding": True})
    with contextlib.suppress(KeyboardInterrupt):
        run_training(store, folder / "stopped", config=TOGETHER, dropout=0.0, interrupt_at=interrupt_at)


@contextlib.contextmanager
def nothing_drawn() -> Iterator[None]:
    """Draw ones for the latents and noise of a step, which processes draw apart from each other."""
    with (
        mock.patch.object(torch, "randn_like", torch.ones_like),
        mock.patch.object(torch, "randn", lambda shape, device=None: torch.ones(shape, device=device)),
        mock.patch.object(
            torch, "randint", lambda low, high, size, device=None: torch.full(size, high // 2, device=device)
        ),
    ):
        yield


def stand_in(evaluated: list[str], checkpoint: Path, env: object, seeds: range, **_: object) -> EvaluationRecord:
    """Evaluate without rollouts: every episode succeeds, one more with every evaluation."""
    evaluated.append(checkpoint.parent.name)
    episodes = tuple(Episode(seed, True, 3, 1.0, 0.1) for seed in (*seeds, *range(len(evaluated))))
    return EvaluationRecord(episodes, {"type": "toy"}, None, {}, str(checkpoint), 1.0, 1)


def stop_one_of_two(store: Path, run_dir: Path) -> None:
    """Ask one process alone to stop, in step 3; both end it, and stop."""
    batch = TrainingBatches.batch

    def ask(self: TrainingBatches, index: int) -> dict[str, torch.Tensor]:
        if index == 2 and os.environ["RANK"] == "1":
            signal.raise_signal(signal.SIGTERM)
        return batch(self, index)

    TrainingBatches.batch = ask
    try:
        run_training(store, run_dir, config=dataclasses.replace(TOGETHER, log_every=2, checkpoint_every=6))
        (run_dir / f"not_stopped-{os.environ['RANK']}").touch()
    except StoppedError:
        pass
    finally:
        TrainingBatches.batch = batch


def two_processes(store: Path, folder: Path) -> None:
    """Run in one of two processes."""
    run_all(store, folder, interrupt_at=4)
    run_training(store, folder / "dropout", config=TOGETHER)
    rank = os.environ["RANK"]
    stop_one_of_two(store, folder / "asked")
    evaluated: list[str] = []
    job_module.evaluate_policy = functools.partial(stand_in, evaluated)
    record = run_policy_job(toy_job(folder.parent / "toy.zarr", folder / "job"), console=Console(quiet=True))
    (folder / f"job-{rank}.json").write_text(json.dumps([evaluated, record.n_successes]))
    try:
        run_training(store, folder / "too_small", config=dataclasses.replace(CONFIG, batch_size=1))
        message = "no error"
    except UserError as error:
        message = str(error)
    (folder / f"too_small-{rank}.json").write_text(json.dumps(message))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one process in `one`, of two in `two`; `two/stopped` is continued by one process."""
    folder = tmp_path_factory.mktemp("processes")
    store = make_store(folder / "demos.zarr")
    make_demonstrations(folder / "toy.zarr")
    run_all(store.path, folder / "one")
    (folder / "two").mkdir()
    for done in run_two_processes(__file__, str(store.path), str(folder / "two"), cwd=folder):
        assert done.returncode == 0, done.stderr
    run_training(store.path, folder / "two" / "stopped", config=TOGETHER, dropout=0.0)
    return folder


@pytest.mark.parametrize("run", ["plain", "finetune", "vae", "unmasked", "masked", "stopped"])
def test_two_processes_train_as_one(runs: Path, run: str) -> None:
    one, two = losses(runs / "one" / run), losses(runs / "two" / run)
    assert list(two) == list(one)
    assert list(two.values()) == pytest.approx(list(one.values()), rel=TOLERANCE)


def test_both_stop_where_one_is_asked_to(runs: Path) -> None:
    asked = runs / "two" / "asked"
    assert list(losses(asked)) == [2, 3]
    assert (asked / "checkpoints" / "last").readlink().name == "000003"
    assert not list(asked.glob("not_stopped-*"))


def test_the_main_process_alone_writes(runs: Path) -> None:
    assert len(losses(runs / "two" / "dropout")) == TOGETHER.steps  # `logged` refuses a step that is there twice
    names = {path.name for path in (runs / "two" / "dropout").iterdir()}
    assert names == {"checkpoints", "log.jsonl", "tensorboard"}
    assert len(list((runs / "two" / "dropout" / "tensorboard").iterdir())) == 1


def test_a_job_of_two_processes_is_one_run_that_both_know_the_result_of(runs: Path) -> None:
    (run_dir,) = (runs / "two" / "job" / "train_policy").iterdir()
    assert list(losses(run_dir)) == [1, 2, 3, 4]
    assert {"config.yaml", "report.html", "evaluation", "checkpoints"} <= {path.name for path in run_dir.iterdir()}
    (main, successes), (other, successes_too) = (
        json.loads((runs / "two" / f"job-{rank}.json").read_text()) for rank in range(2)
    )
    assert main == ["000002", "000004", "000004"]  # during training, and the best at the end
    assert other == []
    assert successes == successes_too == 2 + 3


def test_too_many_processes_are_refused_by_each(runs: Path) -> None:
    for rank in range(2):
        message = json.loads((runs / "two" / f"too_small-{rank}.json").read_text())
        assert "A batch of 1 windows cannot be shared by 2 processes" in message


@pytest.fixture
def store(tmp_path: Path) -> DemoStore:
    return make_store(tmp_path / "demos.zarr")


def test_bfloat16_rounds_what_is_computed_and_not_what_is_kept(store: DemoStore, tmp_path: Path) -> None:
    # Slow: at higher rates Adam makes steps of another sign of gradients that are nearly zero.
    config = dataclasses.replace(CONFIG, steps=3, learning_rate=1e-5)
    run_training(store.path, tmp_path / "float32", config=config, dropout=0.0)
    config = dataclasses.replace(config, precision="bfloat16")
    model_dir = run_training(store.path, tmp_path / "bfloat16", config=config, dropout=0.0)
    exact, rounded = (list(losses(tmp_path / name).values()) for name in ("float32", "bfloat16"))
    assert exact != rounded
    assert rounded == pytest.approx(exact, rel=2**-8)  # products of 8 bits: relative 2^-9 each, less in a mean
    assert {tensor.dtype for tensor in load_file(model_dir / "model.safetensors").values()} == {torch.float32}


@pytest.mark.parametrize(
    ("precision", "launched_with", "message"),
    [
        ("float32", "bf16", "leave the former out and set precision=bfloat16"),
        pytest.param(
            "float16",
            "no",
            "needs a GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_precisions_that_cannot_be(
    precision: str, launched_with: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched_with)
    with pytest.raises(UserError, match=message):
        join_training_processes(precision)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "3"), ("LOCAL_WORLD_SIZE", "3"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match=r"3 processes .* with 2 GPUs.*start at most 2 \(--nproc-per-node 2\)"):
        join_processes("cuda")


if __name__ == "__main__":
    two_processes(Path(sys.argv[1]), Path(sys.argv[2]))
