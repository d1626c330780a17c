"""The README's command at its full size; some eight minutes, so only with `uv run pytest -m slow`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_main_job_solves_lift_and_lerobot_agrees(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(ROOT / "scripts" / "train_policy.py")], cwd=tmp_path, check=True)
    run_dir = next((tmp_path / "outputs" / "train_policy").iterdir())
    record = json.loads((run_dir / "evaluation" / "evaluation.json").read_text())
    assert record["n_episodes"] == 50
    assert record["success_rate"] >= 0.9
    command = [
        *(sys.executable, "-m", "lerobot.scripts.lerobot_eval"),
        f"--policy.path={run_dir / 'checkpoints' / 'last' / 'pretrained_model'}",
        *("--env.type=pixio_robosuite", "--eval.n_episodes=50", "--eval.batch_size=1", "--seed=100000"),
        "--output_dir=lerobot",
    ]
    subprocess.run(command, cwd=tmp_path, check=True)
    theirs = json.loads((tmp_path / "lerobot" / "eval_info.json").read_text())["per_task"][0]["metrics"]["successes"]
    assert theirs == [episode["success"] for episode in record["episodes"]]
