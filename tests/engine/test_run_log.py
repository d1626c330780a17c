"""A run's numbers: one log that survives an interruption, and the same curves on TensorBoard and wandb."""

import json
import sys
from pathlib import Path

from pytest import MonkeyPatch, raises
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pixio_robot.common.errors import UserError
from pixio_robot.engine.run_log import RunLog

QUIET = Console(quiet=True)


def curve(run_dir: Path, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(run_dir / "tensorboard")).Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_a_resumed_run_draws_each_step_once(tmp_path: Path) -> None:
    for first, last in ((0, 6), (3, 9)):  # stopped after step 6, with a checkpoint of step 3
        with RunLog(tmp_path, QUIET) as log:
            log.begin_curves("training", first)
            for step in range(first + 1, last + 1):
                log.write("training", step=step, loss=10.0 * last + step)
            log.write("training", step=last, success_rate=0.25, episodes=4)
            log.write("evaluation", event="finished", seconds=1.0)
    expected = [(step, 60.0 + step) for step in (1, 2, 3)] + [(step, 90.0 + step) for step in range(4, 10)]
    assert curve(tmp_path, "loss") == expected
    assert curve(tmp_path, "success_rate") == [(9, 0.25)]
    with RunLog(tmp_path, QUIET) as log:
        assert [(entry["step"], entry["loss"]) for entry in log.entries("training") if "loss" in entry] == expected
        assert len(log.entries("evaluation")) == 2  # phases without steps are kept


def test_a_line_that_was_cut_off_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"phase": "training", "step": 1, "loss": 2.0}\n{"phase": "trai')
    with RunLog(tmp_path, QUIET) as log:
        log.write("features", event="finished")  # before anything has looked at what is there
        log.begin_curves("training", 1)
        log.write("training", step=2, loss=1.5)
        assert len(log.entries("features")) == 1
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line.get("step") for line in lines] == [1, None, 2]


def test_a_process_that_does_not_write_leaves_nothing(tmp_path: Path) -> None:
    with RunLog(tmp_path / "run", QUIET, writes=False) as log:
        log.begin_curves("training", 0)
        log.write("training", step=1, loss=1.0)
    assert not (tmp_path / "run").exists()


def test_wandb_takes_the_curves_offline_and_a_resumed_run_continues_them(
    tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (tmp_path / "config.yaml").write_text("seed: 3\n")
    for first, last in ((0, 2), (1, 3)):
        with RunLog(tmp_path, QUIET, wandb_project="toy") as log:
            log.begin_curves("training", first)
            for step in range(first + 1, last + 1):
                log.write("training", step=step, loss=1.0 / step)
    identity = (tmp_path / "wandb_id").read_text()
    files = sorted((tmp_path / "wandb").glob(f"offline-run-*/run-{identity}.wandb"))
    assert len(files) == 2 or (len(files) == 1 and files[0].stat().st_size > 0)  # two that start in one second share
    assert b"loss" in files[0].read_bytes()


def test_wandb_that_is_not_installed_is_said_before_anything_slow(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with raises(UserError, match=r"trainer.wandb needs wandb: install it with `pip install 'pixio-robot\[wandb\]'`"):
        RunLog(tmp_path, QUIET, wandb_project="toy")
