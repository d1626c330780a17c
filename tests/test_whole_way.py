"""The whole way, tiny: collect → train → evaluate → export → load, with the commands of the README."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from pytest import approx, fixture

from pixio_robot.demos import DemoStore
from pixio_robot.deployment.artifact import load_artifact
from pixio_robot.deployment.lerobot_policy import open_policy

ROOT = Path(__file__).parents[1]
EPISODE_LENGTH = 12


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A folder in which the main job has run on two demonstrations and a handful of steps."""
    folder = tmp_path_factory.mktemp("clone")
    train = str(ROOT / "scripts" / "train_policy.py")
    tiny = [
        "trainer=debug",
        "evaluation.episodes=2",
        "evaluation.videos=2",
        f"env.episode_length={EPISODE_LENGTH}",
        "env.image_size=64",
    ]
    # Demonstrations need a full episode, so they come from the same environment without the short limit.
    run(folder, str(ROOT / "scripts" / "collect_demos.py"), "episodes=2", "output=lift.zarr", "env.image_size=64")
    first = run(folder, train, *tiny, "demos=store", "demos.path=lift.zarr")
    (folder / "stdout.txt").write_text(first.stdout)
    return folder


def run_dir(workplace: Path) -> Path:
    return next((workplace / "outputs" / "train_policy").iterdir())


def test_the_main_job_leaves_everything(workplace: Path) -> None:
    output = (workplace / "stdout.txt").read_text()
    folder = run_dir(workplace)
    record = json.loads((folder / "evaluation" / "evaluation.json").read_text())
    assert record["n_episodes"] == 2
    assert [episode["seed"] for episode in record["episodes"]] == [100000, 100001]
    assert record["render_profile"] == "fast"
    assert 0 <= record["ci95"][0] <= record["success_rate"] <= record["ci95"][1] <= 1
    assert "95 % interval" in output
    assert "report.html" in output
    report = (folder / "report.html").read_text()
    assert "<video" in report
    assert len(list((folder / "evaluation" / "videos").glob("*.mp4"))) == 2
    phases = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    finished = {line["phase"] for line in phases if line.get("event") == "finished"}
    assert finished == {"demonstrations", "features", "training", "evaluation", "report"}
    assert sorted(DemoStore.open(workplace / "lift.zarr").episode_seeds) == [0, 1]


def test_lerobot_eval_gives_the_same_episodes(workplace: Path) -> None:
    folder = run_dir(workplace)
    checkpoint = folder / "checkpoints" / "last" / "pretrained_model"
    run(
        workplace,
        "-m",
        "lerobot.scripts.lerobot_eval",
        f"--policy.path={checkpoint}",
        "--env.type=pixio_robosuite",
        f"--env.episode_length={EPISODE_LENGTH}",
        "--env.image_size=64",
        "--eval.n_episodes=2",
        "--eval.batch_size=1",
        "--seed=100000",
        "--output_dir=lerobot",
    )
    theirs = json.loads((workplace / "lerobot" / "eval_info.json").read_text())["per_task"][0]["metrics"]
    ours = json.loads((folder / "evaluation" / "evaluation.json").read_text())["episodes"]
    assert theirs["successes"] == [episode["success"] for episode in ours]
    assert theirs["sum_rewards"] == approx([episode["return"] for episode in ours], rel=1e-4)


def test_export_and_load(workplace: Path) -> None:
    checkpoint = run_dir(workplace) / "checkpoints" / "last" / "pretrained_model"
    export = str(ROOT / "scripts" / "export_torchscript.py")
    done = run(workplace, export, f"checkpoint={checkpoint}", "output=policy.pt")
    assert "largest difference" in done.stdout
    module, metadata = load_artifact(workplace / "policy.pt")
    assert metadata["kind"] == "policy"
    assert metadata["control_rate_hz"] == 20
    store = DemoStore.open(workplace / "lift.zarr")
    steps = np.array([3, 11, 20])  # not the steps that the export was traced and checked on
    keys = [key for key in store.features if key.startswith("observation.")]
    observation = {key: torch.from_numpy(store.read_steps(key, steps)) for key in keys}
    opened = open_policy(checkpoint)
    assert list(metadata["cameras"]) == list(opened.image_sizes)
    torch.testing.assert_close(module(observation), opened.eager(observation), rtol=0, atol=1e-4)
    torch.testing.assert_close(module(module.golden_observation), module.golden_output, rtol=0, atol=1e-4)


def test_export_of_the_encoder_alone(workplace: Path) -> None:
    export = str(ROOT / "scripts" / "export_torchscript.py")
    run(workplace, export, "encoder.weights=random", "frames=lift.zarr", "output=encoder.pt")
    module, metadata = load_artifact(workplace / "encoder.pt")
    frames = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    assert module({"observation.images.camera": frames}).shape == (2, 8 + 16, 192)
    assert metadata["tokens"] == {"global": 8, "grid": [4, 4], "width": 192}


def test_a_large_encoder_trains_a_few_steps(workplace: Path) -> None:
    """`encoder=pixio_vitl` builds and trains; its 303 M weights are random here."""
    done = run(
        workplace,
        str(ROOT / "scripts" / "train_policy.py"),
        "encoder=pixio_vitl",
        "encoder.weights=random",
        "trainer=debug",
        "demos=store",
        "demos.path=lift.zarr",
        "evaluation.episodes=1",
        "evaluation.workers=1",
        "env.episode_length=4",
        "env.image_size=64",
    )
    assert "pixio_act on pixio_vitl16" in done.stdout
