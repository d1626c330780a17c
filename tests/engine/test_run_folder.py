"""Folders of runs: never shared by two, found by name, continued with the settings that may change."""

import os
from pathlib import Path

import pytest

from pixio_robot.common.errors import UserError
from pixio_robot.engine import run_folder
from pixio_robot.engine.run_folder import begun_run_dir, new_run_dir, run_to_resume, with_changes


def begun(folder: Path, *, age: float = 0.0, finished: bool = False) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 0\n")
    os.utime(folder / "config.yaml", (1e9 - age, 1e9 - age))
    if finished:
        (folder / "report.html").touch()
    return folder


def test_runs_that_begin_in_one_second_get_folders_of_their_own(tmp_path: Path) -> None:
    folders = [new_run_dir(tmp_path) for _ in range(5)]
    assert len({folder.name for folder in folders}) == 5


def test_a_name_is_taken_once(tmp_path: Path) -> None:
    assert new_run_dir(tmp_path, "lift_small") == tmp_path / "lift_small"
    with pytest.raises(UserError, match="There is a run .*lift_small already: continue it with resume=auto"):
        new_run_dir(tmp_path, "lift_small")
    for wrong in ("a/b", "..", "", "/tmp/x"):
        with pytest.raises(UserError, match="is no name of a folder"):
            new_run_dir(tmp_path, wrong)


def test_an_empty_folder_left_behind_is_begun_and_two_jobs_never_meet_in_one(tmp_path: Path) -> None:
    (tmp_path / "lift").mkdir()
    with pytest.raises(UserError, match="There is a run"):
        begun_run_dir(tmp_path, "lift", None, None)
    run_dir = begun_run_dir(tmp_path, "lift", "auto", None)
    assert begun_run_dir(tmp_path, None, "last", run_dir) == run_dir  # the same process goes on
    run_folder._OURS.clear()  # now as another one
    for resumed in (None, run_dir):
        with pytest.raises(UserError, match=r"Another process is at work in .*lift"):
            begun_run_dir(tmp_path, "lift", "auto", resumed)
    (run_dir / "config.yaml").touch()
    with pytest.raises(UserError, match="There is a run"):
        begun_run_dir(tmp_path, "lift", "auto", None)


def test_auto_begins_what_does_not_exist_and_continues_what_does(tmp_path: Path) -> None:
    assert run_to_resume(tmp_path, "lift", "auto", "report.html") is None
    begun(tmp_path / "lift")
    assert run_to_resume(tmp_path, "lift", "auto", "report.html") == tmp_path / "lift"
    with pytest.raises(UserError, match="add run=NAME"):
        run_to_resume(tmp_path, None, "auto", "report.html")


def test_last_is_the_newest_unfinished_run_whatever_its_name(tmp_path: Path) -> None:
    begun(tmp_path / "2026-01-01_00-00-00", age=1)
    begun(tmp_path / "a_named_one")
    begun(tmp_path / "z_finished", finished=True)
    assert run_to_resume(tmp_path, None, "last", "report.html") == tmp_path / "a_named_one"
    assert run_to_resume(tmp_path, None, "2026-01-01_00-00-00", "report.html") == tmp_path / "2026-01-01_00-00-00"
    with pytest.raises(UserError, match="There is no run at nowhere"):
        run_to_resume(tmp_path, None, "nowhere", "report.html")
    with pytest.raises(UserError, match="name two runs"):
        run_to_resume(tmp_path, "a_named_one", "last", "report.html")


def test_what_may_change_changes_and_the_rest_is_refused_by_name(tmp_path: Path) -> None:
    saved = {"seed": 3, "trainer": {"steps": 60, "learning_rate": 1e-3}}
    changeable = frozenset({"trainer.steps"})
    settings, changes = with_changes(saved, {"trainer.steps": 99, "seed": 3}, changeable, tmp_path)
    assert settings == {"seed": 3, "trainer": {"steps": 99, "learning_rate": 1e-3}}
    assert changes == ["trainer.steps 60 → 99"]
    assert saved["trainer"]["steps"] == 60
    with pytest.raises(UserError, match=r"trainer.learning_rate=0.0001 is not what .* was begun with \(0.001\)"):
        with_changes(saved, {"trainer.learning_rate": 1e-4}, changeable, tmp_path)
