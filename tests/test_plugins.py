"""A task and a policy of one's own: those that the pages of environments and policies add, by the pages' own text."""

import json
import shutil
from pathlib import Path

from forked_scripts import run_script
from pages import ROOT, install, write_files

from pixio_robot.deployment.artifact import load_artifact

TASK = ["touch/lerobot_env_touch.py", "touch/pyproject.toml", "touch/env/touch.yaml"]
MODULES = ("__init__", "configuration_linear", "modeling_linear", "processor_linear")
POLICY = [
    *("linear/pyproject.toml", *(f"linear/lerobot_policy_linear/{module}.py" for module in MODULES)),
    "linear/policy/linear.yaml",
]


def test_the_pages_task_and_policy_are_demonstrated_trained_measured_and_exported(tmp_path: Path) -> None:
    for page, names in (("envs", TASK), ("policies", POLICY)):
        assert [str(file.relative_to(tmp_path)) for file in write_files(ROOT / page / "README.md", tmp_path)] == names
    install(tmp_path / "touch")
    install(tmp_path / "linear")
    shutil.copytree(tmp_path / "linear" / "policy", tmp_path / "touch" / "policy")  # a command takes one --config-dir
    environment = {"PYTHONPATH": f"{tmp_path / 'touch'}:{tmp_path / 'linear'}", "COLUMNS": "200"}
    small = ["env.image_size=32", "demos.episodes=2", "trainer=debug", "evaluation.episodes=2", "evaluation.videos=0"]
    train = ["--config-dir", "touch", "env=touch", "policy=linear", "run=touch", "evaluation.workers=1"]
    said = ""
    for script, arguments in (
        ("train_policy.py", [*train, "demos.workers=1", *small]),
        ("export.py", ["checkpoint=touch", "output=touch.pt"]),
    ):
        done = run_script(script, *arguments, cwd=tmp_path, environment=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        said += done.stdout
    assert "the expert failed on 0 of 2 seeds" in said
    record = json.loads(
        (tmp_path / "outputs" / "train_policy" / "touch" / "evaluation" / "evaluation.json").read_text()
    )
    assert record["env"]["type"] == "touch"
    assert len(record["episodes"]) == 2
    _, metadata = load_artifact(tmp_path / "touch.pt")
    assert metadata["policy"] == "linear"
    assert metadata["action"]["names"] == ["x.pos", "y.pos"]
