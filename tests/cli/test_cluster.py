"""A sweep whose runs are jobs of a cluster, tried on this machine."""

from pathlib import Path

import pytest
from forked_scripts import run_script

from pixio_robot.cli.entry_points import load_job
from pixio_robot.evaluation.record import EvaluationRecord


def test_a_sweep_that_cannot_be_started_is_a_sentence(capsys, monkeypatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    job = load_job("train_policy")
    for words, said in (
        (["-m", "hydra/launcher=submitit_slurm", "seed=0,1"], "there is no Slurm here"),
        (["hydra/launcher=submitit_slurm", "seed=0"], "has no effect on a single run: add -m"),
    ):
        monkeypatch.setattr("sys.argv", ["train_policy.py", *words])
        with pytest.raises(SystemExit) as caught:
            job()
        assert caught.value.code == 2
        assert said in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("sys.argv", ["train_policy.py", "-m", "hydra/launcher=submitit_local", "seed=0,1"])
    with pytest.raises(SystemExit):
        job()
    assert "pip install 'pixio-robot[cluster]'" in capsys.readouterr().err


@pytest.mark.slow
def test_runs_of_a_sweep_are_jobs_of_their_own_and_share_one_folder(tmp_path: Path) -> None:
    done = run_script(
        "train_policy.py",
        *("-m", "hydra/launcher=submitit_local", "seed=0,1", "trainer=debug", "encoder.weights=random"),
        *("demos.episodes=2", "demos.workers=1", "evaluation.episodes=1", "evaluation.workers=1"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    runs = sorted((tmp_path / "outputs" / "train_policy").iterdir())
    assert len(runs) == 2
    for run in runs:
        EvaluationRecord.load(run / "evaluation" / "evaluation.json")
    assert {(run / "config.yaml").read_text().count("seed: 1\n") > 0 for run in runs} == {True, False}
