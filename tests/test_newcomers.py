"""Three newcomers' ways, with the commands of the pages, from wheels outside of the clone.

A student sees a first success rate, another task and another encoder; a researcher compares encoders on a dataset; an
engineer comes to an arm.
"""

import csv
import json
import os
import re
import subprocess
from pathlib import Path

from pytest import fixture, mark
from recorded_dataset import HEIGHT, JOINTS, WIDTH, record_dataset

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "tests" / "helpers" / "robot_plugin"
REST = dict(zip(JOINTS, (0.0, -20.0, 30.0, 0.0, 0.0, 10.0), strict=True))

pytestmark = [mark.slow, mark.timeout(3600)]


@fixture(scope="module")
def pixio(tmp_path_factory) -> Path:
    """The command of a fresh environment, into which the three wheels were installed, with the tested versions."""
    folder = tmp_path_factory.mktemp("fresh")
    environment = os.environ | {"VIRTUAL_ENV": str(folder / "venv")}

    def uv(*arguments: str) -> None:  # beside pyproject.toml, which has the tested versions
        program = os.environ.get("UV", "uv")  # the one that runs the tests, where it does
        subprocess.run([program, *arguments], cwd=ROOT, env=environment, check=True)

    uv("build", "--all-packages", "--wheel", "--quiet", "-o", str(folder / "dist"))
    wheels = [str(wheel) for wheel in (folder / "dist").glob("*.whl")]
    assert len(wheels) == 3
    uv("venv", "--quiet", "--python", "3.12", str(folder / "venv"))
    uv("pip", "install", "--quiet", *wheels)
    return folder / "venv" / "bin" / "pixio"


def run(pixio: Path, folder: Path, job: str, *arguments: str) -> str:
    environment = os.environ | {"COLUMNS": "200", "PYTHONPATH": str(PLUGIN), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([pixio, job, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    said = done.stdout + done.stderr
    is_busy = said.count("FAIL") == 1 and "FAIL  p99" in said  # this computer, while an artifact's times are measured
    assert (done.returncode == 0 or is_busy) and "Traceback" not in said, said
    return said


def test_a_student_sees_a_success_rate_another_task_and_another_encoder(pixio: Path, tmp_path: Path) -> None:
    quick = ["demos.episodes=4", "trainer.steps=20", "trainer.batch_size=8", "evaluation.episodes=2"]
    first = run(pixio, tmp_path, "train_policy", *quick, "run=first")
    assert re.search(r"\d+ % success \(\d of 2 episodes", first)
    task = run(pixio, tmp_path, "train_policy", *quick, "env=robosuite_stack", "run=task")
    assert "of 2 episodes" in task
    run(pixio, tmp_path, "train_policy", *quick, "encoder=resnet18", "encoder.weights=random", "run=encoder")
    runs = tmp_path / "outputs" / "train_policy"
    for name in ("first", "task", "encoder"):
        page = (runs / name / "report.html").read_text()
        assert "success" in page and "<video" in page
        assert len(json.loads((runs / name / "evaluation" / "evaluation.json").read_text())["episodes"]) == 2
    said = run(pixio, tmp_path, "list", "runs")
    assert all(name in said for name in ("first", "task", "encoder"))
    run(pixio, tmp_path, "compare_runs", "runs=[first,encoder]")
    rows = [*csv.DictReader((tmp_path / "outputs" / "compare_runs" / "comparison.csv").open())]
    assert len(rows) == 2


@fixture(scope="module")
def desk(pixio: Path, tmp_path_factory) -> Path:
    """A folder with six recorded episodes, and four runs on them: two encoders, two seeds."""
    folder = tmp_path_factory.mktemp("desk")
    record_dataset(folder / "reach", steps=30, video=False)
    sweep = ["-m", "encoder=pixio_tiny,resnet18", "seed=0,1", "trainer.steps=20", "encoder.weights=random"]
    said = run(pixio, folder, "train_policy", *sweep, "demos=lerobot", "demos.root=reach")
    assert "frames of 480×640 px are resized to 96×128" in said
    assert "168×224 and filled up to 224×224" in said
    assert said.count("held-out episodes: open-loop error") == 4
    return folder


def test_a_researcher_compares_two_encoders_on_own_data(pixio: Path, desk: Path) -> None:
    run(pixio, desk, "compare_runs")
    first, second = csv.DictReader((desk / "outputs" / "compare_runs" / "comparison.csv").open())
    assert [row["runs"] for row in (first, second)] == ["2", "2"]
    assert first["measure"] == "held-out error" and int(second["shared_episodes"]) == 4
    for folder in (desk / "outputs" / "train_policy").iterdir():
        assert "Held out worst" in (folder / "report.html").read_text()
        assert len(json.loads((folder / "held_out.json").read_text())["episodes"]) == 2


def test_an_engineer_comes_to_a_dry_run_on_an_arm_that_lists_its_joints_in_another_order(
    pixio: Path, desk: Path
) -> None:
    run(pixio, desk, "export", "checkpoint=latest", "output=policy.pt")
    run(pixio, desk, "verify_artifact", "policy.pt", "calls=5", "threads=[1]")
    joints = [*reversed(JOINTS)]
    arm = [
        *("robot=lerobot", "robot.type=noting", f"+robot.image_size={HEIGHT}", f"+robot.image_width={WIDTH}"),
        *(f"+robot.joints=[{','.join(joints)}]", f"+robot.stands=[{','.join(str(REST[name]) for name in joints)}]"),
    ]
    said = run(pixio, desk, "run_policy", "artifact=policy.pt", *arm, "dry_run=true", "duration=3")
    assert f"action: {', '.join(JOINTS)}" in said
    assert not (desk / "actions.jsonl").exists()  # nothing was sent
