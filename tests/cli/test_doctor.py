"""`scripts/doctor.py` finds what a machine lacks and says what to do about it."""

import importlib.metadata
import re
from pathlib import Path

import pytest
from forked_scripts import run_script

from pixio_robot.cli import doctor


def test_a_machine_that_runs_the_tests_runs_the_main_job(tmp_path: Path) -> None:
    result = run_script("doctor.py", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "robosuite's Lift renders" in result.stdout
    assert "The main job can run" in result.stdout


def test_missing_opengl_fails_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "glfw")  # needs a screen
    monkeypatch.delenv("DISPLAY", raising=False)
    findings = {finding.subject: finding for finding in doctor.examine(tmp_path)}
    assert findings["simulation"].state == "failed"
    assert "apt-get install libegl1" in findings["simulation"].text


@pytest.mark.parametrize(
    ("requirement", "state", "text"),
    [
        ("torch<1", "failed", r"torch is .*, <1 is needed"),
        ("no-such-package", "failed", "no-such-package is missing"),
        ('no-such-package; extra == "onnx"', "note", "extras not installed: onnx"),
        ("torch>=2", "ok", "all extras"),
    ],
)
def test_packages_are_held_against_what_the_project_asks_for(
    requirement: str, state: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: [requirement])
    finding = next(doctor.examine(tmp_path))
    assert finding.state == state
    assert re.search(text, finding.text)


def test_an_output_folder_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_RENDER", "print(1)")  # tested above
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    finding = list(doctor.examine(tmp_path / "outputs"))[-1]
    assert finding.state == "failed"
    assert str(tmp_path) in finding.text


def test_a_check_that_breaks_is_a_finding_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> list[str]:
        raise OSError("metadata are gone")

    monkeypatch.setattr(doctor, "_RENDER", "print(1)")  # tested above
    monkeypatch.setattr(importlib.metadata, "requires", broken)
    findings = list(doctor.examine(tmp_path))
    assert findings[0].state == "failed" and "metadata are gone" in findings[0].text
    assert len(findings) == 8
