"""The main job on the toy environment: evaluated during training, measured on other seeds, shown in the report."""

import dataclasses
from pathlib import Path

from pytest import raises
from rich.console import Console
from toy_job import make_demonstrations, toy_job
from toy_run import logged

from pixio_robot.errors import UserError
from pixio_robot.training import run_policy_job


def test_the_best_checkpoint_of_a_run_is_measured_on_other_seeds(tmp_path: Path) -> None:
    job = toy_job(make_demonstrations(tmp_path / "demos.zarr").path, tmp_path)
    record = run_policy_job(job, console=Console(quiet=True))
    (run_dir,) = (tmp_path / "train_policy").iterdir()
    job.save(tmp_path / "given.yaml")
    assert (run_dir / "config.yaml").read_text() == (tmp_path / "given.yaml").read_text()
    assert [episode.seed for episode in record.episodes] == [100000, 100001]
    during = logged(run_dir, "success_rate")
    assert list(during) == [2, 4]
    assert logged(run_dir, "episodes") == {2: 3, 4: 3}
    best = 4 if during[4] >= during[2] else 2
    assert record.checkpoint == str(run_dir / "checkpoints" / f"{best:06d}" / "pretrained_model")
    assert "Success rate · training" in (run_dir / "report.html").read_text()
    assert list((run_dir / "tensorboard").iterdir())


def test_a_choice_that_cannot_be_costs_nothing(tmp_path: Path) -> None:
    job = toy_job(make_demonstrations(tmp_path / "demos.zarr").path, tmp_path)
    trainer = dataclasses.replace(job.trainer, evaluate_every=0)
    evaluation = dataclasses.replace(job.evaluation, checkpoint="best")
    with raises(UserError, match="best needs evaluations during training"):
        run_policy_job(dataclasses.replace(job, trainer=trainer, evaluation=evaluation), console=Console(quiet=True))
    assert not (tmp_path / "features").exists()
