"""Two newcomers' ways, with the commands of the pages: a researcher with a dataset and encoders, an engineer with an arm."""

import csv
import json
from pathlib import Path

from forked_scripts import run_python
from pytest import fixture, mark
from recorded_dataset import HEIGHT, JOINTS, WIDTH, record_dataset

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "tests" / "helpers" / "robot_plugin"
REST = dict(zip(JOINTS, (0.0, -20.0, 30.0, 0.0, 0.0, 10.0), strict=True))

pytestmark = [mark.slow, mark.timeout(1800)]


def run(folder: Path, script: str, *arguments: str) -> str:
    environment = {"COLUMNS": "200", "PYTHONPATH": str(PLUGIN), "HF_HUB_OFFLINE": "1"}
    done = run_python(str(ROOT / "scripts" / f"{script}.py"), *arguments, cwd=folder, environment=environment)
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "Traceback" not in said, said
    return said


@fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A folder with six recorded episodes, and four runs on them: two encoders, two seeds."""
    folder = tmp_path_factory.mktemp("desk")
    record_dataset(folder / "reach", steps=30, video=False)
    sweep = ["-m", "encoder=pixio_tiny,resnet18", "seed=0,1", "trainer.steps=20", "encoder.weights=random"]
    said = run(folder, "train_policy", *sweep, "demos=lerobot", "demos.root=reach")
    assert "frames of 480×640 px are resized to 96×128" in said
    assert "168×224 and filled up to 224×224" in said
    assert said.count("held-out episodes: open-loop error") == 4
    return folder


def test_a_researcher_compares_two_encoders_on_own_data(desk: Path) -> None:
    run(desk, "compare_runs")
    first, second = csv.DictReader((desk / "outputs" / "compare_runs" / "comparison.csv").open())
    assert [row["runs"] for row in (first, second)] == ["2", "2"]
    assert first["measure"] == "held-out error" and int(second["shared_episodes"]) == 4
    for folder in (desk / "outputs" / "train_policy").iterdir():
        assert "Held out worst" in (folder / "report.html").read_text()
        assert len(json.loads((folder / "held_out.json").read_text())["episodes"]) == 2


def test_an_engineer_comes_to_a_dry_run_on_an_arm_that_lists_its_joints_in_another_order(desk: Path) -> None:
    run(desk, "export", "checkpoint=latest", "output=policy.pt")
    run(desk, "verify_artifact", "policy.pt", "calls=5", "threads=[1]")
    joints = [*reversed(JOINTS)]
    arm = [
        *("robot=lerobot", "robot.type=noting", f"+robot.image_size={HEIGHT}", f"+robot.image_width={WIDTH}"),
        *(f"+robot.joints=[{','.join(joints)}]", f"+robot.stands=[{','.join(str(REST[name]) for name in joints)}]"),
    ]
    said = run(desk, "run_policy", "artifact=policy.pt", *arm, "dry_run=true", "duration=3")
    assert f"action: {', '.join(JOINTS)}" in said
    assert not (desk / "actions.jsonl").exists()  # nothing was sent
