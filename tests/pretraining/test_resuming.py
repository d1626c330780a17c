"""Pretraining goes on where it was: after a kill, with other batches, and not with other settings."""

import dataclasses
import json
import os
import signal
import time
from pathlib import Path

import pytest
import tiny_run
import torch
from forked_scripts import Program, run_python
from safetensors.torch import load_file
from tar_shards import write_shards
from tiny_run import logged_losses

from pixio_robot.common.errors import UserError
from pixio_robot.common.storage.json_lines import append_lines
from pixio_robot.pretraining.batches import training_batches
from pixio_robot.pretraining.job import PretrainingJob, other_processes
from pixio_robot.pretraining.sources import ImageCache, folder_images, open_source
from pixio_robot.pretraining.trainer import pretrain

TINY = dataclasses.replace(tiny_run.TINY, drop_path=0.2)


def test_float16_trains_with_a_scaled_loss_that_is_resumed(source: ImageCache, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, precision="float16", steps=3)
    pretrain(config, source, tmp_path / "half")
    pretrain(dataclasses.replace(config, precision="float32"), source, tmp_path / "full")
    half, full = logged_losses(tmp_path / "half"), logged_losses(tmp_path / "full")
    assert half != full
    assert list(half.values()) == pytest.approx(list(full.values()), rel=0.03)
    state = tmp_path / "half" / "checkpoints" / "last" / "state.json"
    assert json.loads(state.read_text())["scale"]["scale"] >= 1
    pretrain(config, source, tmp_path / "half", resume=True)


RUN = """
import json, sys, torch
from pathlib import Path
torch.set_num_threads(1)
from pixio_robot.pretraining.config import PretrainConfig
from pixio_robot.pretraining.job import PretrainingJob, other_processes
from pixio_robot.pretraining.sources import open_source
from pixio_robot.pretraining.trainer import pretrain
config, images, cache, folder = sys.argv[1:]
source = open_source(json.loads(images), Path(cache))
pretrain(PretrainConfig(**json.loads(config)), source, Path(folder), resume=True)
"""


@pytest.mark.parametrize(("optimizer", "kind"), [("adamw", "folder"), ("muon", "shards")])
def test_a_killed_run_resumes_bit_for_bit(optimizer: str, kind: str, image_folder: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, steps=25, optimizer=optimizer)
    killed, whole, cache = tmp_path / "killed", tmp_path / "whole", tmp_path / "cache"
    images = {"kind": "folder", "path": str(image_folder), "side": 40}
    if kind == "shards":
        images = {"kind": "shards", "path": str(write_shards(tmp_path / "shards", 5, 7)), "shards_in_memory": 2}

    def command(checkpoint_minutes: float) -> tuple[str, ...]:
        values = dataclasses.asdict(dataclasses.replace(config, checkpoint_minutes=checkpoint_minutes))
        return ("-c", RUN, json.dumps(values), json.dumps(images), str(cache), str(killed))

    with Program(command(0), tmp_path) as program:
        while not list(killed.glob("checkpoints/[0-9]*")):
            assert program.is_running, program.output
            time.sleep(0.005)
        os.kill(program.pid, signal.SIGKILL)
        assert program.ended().returncode == -signal.SIGKILL
    assert not (killed / "encoder.safetensors").exists()
    # What a longer life after the checkpoint would have logged, its last line cut off.
    with (killed / "log.jsonl").open("a") as file:
        file.write('{"phase": "pretraining", "step": 24, "loss": 1.5}\n{"phase": "pretr')
    done = run_python(*command(5), cwd=tmp_path)
    assert done.returncode == 0, done.stderr

    pretrain(config, open_source(images, cache), whole)
    assert logged_losses(killed) == logged_losses(whole)
    assert len(logged_losses(killed)) == 25
    resumed, straight = (load_file(folder / "encoder.safetensors") for folder in (killed, whole))
    assert all(torch.equal(resumed[key], straight[key]) for key in straight)


def test_resuming_refuses_another_variant_other_settings_and_other_images(
    source: ImageCache, image_folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    pretrain(TINY, source, run)
    with pytest.raises(UserError, match="already holds a run"):
        pretrain(TINY, source, run)
    with pytest.raises(UserError, match="is of pixio_tiny16, this run is of pixio_small16"):
        pretrain(dataclasses.replace(TINY, variant="pixio_small16"), source, run, resume=True)
    with pytest.raises(UserError, match=r"lr 0.001 → 0.002"):
        pretrain(dataclasses.replace(TINY, lr=2e-3), source, run, resume=True)
    with pytest.raises(UserError, match="images"):
        pretrain(TINY, folder_images(image_folder, tmp_path / "cache", 48), run, resume=True)


def test_a_checkpoint_of_an_older_version_is_refused(source: ImageCache, tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints" / "0000001").mkdir(parents=True)
    with pytest.raises(UserError, match="can be read by this version"):
        pretrain(TINY, source, tmp_path / "run", resume=True)


def test_a_run_goes_on_with_batches_of_another_size_where_it_was(source: ImageCache, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, steps=2, accumulation=1)
    pretrain(config, source, tmp_path / "run")
    larger = dataclasses.replace(config, steps=4, batch_size=12)
    pretrain(larger, source, tmp_path / "run", resume=True)
    assert list(logged_losses(tmp_path / "run")) == [1, 2, 3, 4]
    states = [json.loads(file.read_text()) for file in sorted(tmp_path.glob("run/checkpoints/[0-9]*/samples-*.json"))]
    assert states == [{"seen": 16}, {"seen": 40}]
    names = [name for batch in training_batches(config, source, 0, 2) for name in batch.names]
    names += [name for batch in training_batches(larger, source, 2, 4, state=states[0]) for name in batch.names]
    epochs = [names[start : start + 13] for start in range(0, 39, 13)]
    assert [len(set(epoch)) for epoch in epochs] == [13] * 3


def test_epochs_of_other_batches_are_no_number_of_steps(image_folder: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(TINY, steps=None, epochs=1.0)
    images = {"kind": "folder", "path": str(image_folder)}
    job = PretrainingJob("pretraining", settings, images, str(tmp_path), str(tmp_path))
    job.save(tmp_path / "config.yaml")
    with pytest.raises(UserError, match=r"give pretraining\.steps=N pretraining\.epochs=null, too"):
        job.continued(tmp_path, {"pretraining.batch_size": 16})
    given = {"pretraining.batch_size": 16, "pretraining.steps": 9, "pretraining.epochs": None}
    continued, changes = job.continued(tmp_path, given)
    assert (continued.settings.batch_size, continued.settings.steps) == (16, 9)
    assert changes[0] == "pretraining.batch_size 8 → 16"


def test_another_number_of_processes_is_said(tmp_path: Path) -> None:
    append_lines(tmp_path / "log.jsonl", [{"phase": "pretraining", "event": "started", "processes": 4}])
    assert other_processes(tmp_path, 2) == ["processes 4 → 2"]
    assert other_processes(tmp_path, 4) == other_processes(tmp_path / "elsewhere", 2) == []
