"""The main job on the toy environment: evaluated during training, measured on other seeds, shown in the report."""

import dataclasses
import json
from pathlib import Path

import pytest
import zarr
from pytest import raises
from rich.console import Console
from toy_job import make_demonstrations, toy_job
from toy_run import logged, make_store

from pixio_robot.common.errors import UserError
from pixio_robot.environments import describe_env, env_config_from
from pixio_robot.training.config import PolicyJob
from pixio_robot.training.corrections import find_policy
from pixio_robot.training.job import run_policy_job


def test_the_best_checkpoint_of_a_run_is_measured_on_other_seeds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_demonstrations(tmp_path / "demos.zarr").path
    env = {"type": "pixio_toy", "render_profile": "glossy"}  # not how the environment of the evaluation is drawn
    zarr.open_group(store, mode="r+").update_attributes({"env": env})
    job = toy_job(store, tmp_path)
    record = run_policy_job(job, console=Console(quiet=True))
    assert record is not None
    assert record.render_profile == "plain"
    assert json.loads((Path(record.checkpoint) / "pixio_run.json").read_text())["env"] == env
    assert "render profile glossy then, plain now" in caplog.text
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
    assert not (tmp_path / "train_policy").exists()


def test_last_is_the_interrupted_run_and_not_a_refused_one_after_it(tmp_path: Path, monkeypatch) -> None:
    job = toy_job(make_demonstrations(tmp_path / "demos.zarr").path, tmp_path)
    with monkeypatch.context() as full_disk:
        full_disk.setattr("pixio_robot.training.job.encoder_features", refuse)
        with raises(UserError, match="the disk is full"):
            run_policy_job(job, console=Console(quiet=True))
    (interrupted,) = (tmp_path / "train_policy").iterdir()  # its policy was built: it can go on
    mistyped = dataclasses.replace(job, encoder=dataclasses.replace(job.encoder, weights="nowhere.safetensors"))
    with raises(UserError, match="No encoder weights at nowhere.safetensors"):
        run_policy_job(mistyped, console=Console(quiet=True))
    record = run_policy_job(job, resume="last", console=Console(quiet=True))
    assert record is not None
    assert list((tmp_path / "train_policy").iterdir()) == [interrupted]
    assert (interrupted / "report.html").is_file()


def refuse(*_: object) -> None:
    raise UserError("the disk is full")


def test_data_of_a_robot_without_a_simulation_train_a_policy(tmp_path: Path, capsys) -> None:
    """Three cameras of other sizes and other joints than any environment here has; nothing is rolled out."""
    sizes = {f"observation.images.{name}": (32, 48) for name in ("top", "left", "right")}
    store = make_store(tmp_path / "robot.zarr", sizes=sizes, state_size=6, action_size=6)
    job = toy_job(store.path, tmp_path)
    job = dataclasses.replace(
        job,
        trainer=dataclasses.replace(job.trainer, evaluate_every=0),
        evaluation=dataclasses.replace(job.evaluation, episodes=0),
    )
    assert run_policy_job(job) is None
    said = capsys.readouterr().out
    assert "open-loop error" in said and "robot=lerobot" in said
    (run_dir,) = (tmp_path / "train_policy").iterdir()
    assert (run_dir / "checkpoints" / "last" / "pretrained_model" / "model.safetensors").is_file()
    assert len(logged(run_dir, "loss")) == 4
    errors = logged(run_dir, "held_out_error")
    assert list(errors) == [1, 2, 3, 4]
    best = min(errors, key=lambda step: (errors[step], -step))
    assert (run_dir / "checkpoints" / "best").resolve().name == f"{best:06d}"
    assert json.loads((run_dir / "held_out.json").read_text())["checkpoint"].endswith(f"{best:06d}/pretrained_model")
    assert "Loss · training" in (run_dir / "report.html").read_text()
    with raises(UserError, match="No unfinished run"):
        run_policy_job(job, resume="last")
    with raises(UserError, match="does not fit the environment"):
        run_policy_job(toy_job(store.path, tmp_path), console=Console(quiet=True))
    with raises(UserError, match="set one or the other"):
        run_policy_job(toy_job_without_measure(job))


def toy_job_without_measure(job: PolicyJob) -> PolicyJob:
    evaluation = dataclasses.replace(job.evaluation, episodes=0, held_out=0.0)
    return dataclasses.replace(job, trainer=dataclasses.replace(job.trainer, evaluate_every=2), evaluation=evaluation)


def test_recorded_demonstrations_are_measured_where_they_were_recorded(tmp_path: Path, capsys) -> None:
    store = make_demonstrations(tmp_path / "demos.zarr").path
    noted = describe_env(env_config_from({"type": "pixio_toy"}))
    zarr.open_group(store, mode="r+").update_attributes({"env": noted})
    job = dataclasses.replace(toy_job(store, tmp_path), env={"episode_length": 4})  # a field of what the store notes
    record = run_policy_job(job)
    assert record is not None
    assert {episode.steps for episode in record.episodes} <= {1, 2, 3, 4}
    assert "recorded in pixio_toy, task Push: the policy is measured there" in " ".join(capsys.readouterr().out.split())
    assert json.loads((Path(record.checkpoint) / "pixio_run.json").read_text())["env"] == noted
    # So is a policy that is corrected.
    found, env_config = find_policy(Path(record.checkpoint), tmp_path, {})
    assert (found, describe_env(env_config)) == (Path(record.checkpoint), noted)
    assert find_policy(found, tmp_path, {"episode_length": 7})[1].episode_length == 7  # pyright: ignore[reportAttributeAccessIssue]


def test_a_store_that_notes_no_simulation_is_judged_on_episodes_that_are_held_out(tmp_path: Path, capsys) -> None:
    store = make_demonstrations(tmp_path / "demos.zarr").path
    zarr.open_group(store, mode="r+").update_attributes({"env": {}})
    job = dataclasses.replace(toy_job(store, tmp_path), env={})
    assert run_policy_job(job) is None
    said = " ".join(capsys.readouterr().out.split())
    assert "does not say which simulation it comes from" in said and "open-loop error" in said
    with raises(UserError, match=r"does not say which simulation it comes from: name one with env=…"):
        run_policy_job(dataclasses.replace(job, env={"episode_length": 4}), console=Console(quiet=True))
