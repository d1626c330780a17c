"""The whole way, tiny: collect → train → evaluate → export → load, with the commands of the README."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import torch
from forked_scripts import run_python
from pages import blocks
from pytest import approx, fixture, mark, param

from pixio_robot.demos import DemoStore
from pixio_robot.deployment.artifact import load_artifact
from pixio_robot.deployment.export.lerobot_policy import open_policy

ROOT = Path(__file__).parents[1]
EPISODE_LENGTH = 12


def run(folder: Path, *command: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {"COLUMNS": "200"} | ({"PYTHONPATH": str(path)} if path else {})
    done = run_python(*command, cwd=folder, environment=environment)
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
    assert record["render_profile"] == "lite"
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


def test_the_pages_few_lines_of_python_step_the_environment(workplace: Path) -> None:
    (lines,) = blocks(ROOT / "pixio_robot" / "evaluation" / "README.md", "python")
    assert "outputs/train_policy/first" in lines
    lines = lines.replace("outputs/train_policy/first", str(run_dir(workplace)))
    lines = lines.replace('Lift-v0")', f'Lift-v0", image_size=64, episode_length={EPISODE_LENGTH})')
    assert run(workplace, "-c", lines).stdout.split()[-1] in ("True", "False")


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
    export = str(ROOT / "scripts" / "export.py")
    done = run(workplace, export, f"checkpoint={checkpoint}", "output=policy.pt")
    assert "difference from the eager path" in done.stdout
    module, metadata = load_artifact(workplace / "policy.pt")
    assert metadata["kind"] == "policy"
    assert metadata["control_rate_hz"] == 20
    store = DemoStore.open(workplace / "lift.zarr")
    steps = np.array([3, 11, 20])  # not the steps that the export was traced and checked on
    keys = [key for key in store.features if key.startswith("observation.")]
    observation = {key: torch.from_numpy(store.read_steps(key, steps)) for key in keys}
    opened = open_policy(checkpoint)
    assert [camera["key"] for camera in metadata["cameras"]] == list(opened.layout.image_sizes)
    torch.testing.assert_close(module(observation), opened.eager(observation), rtol=0, atol=1e-4)
    torch.testing.assert_close(module(module.golden_observation), module.golden_output, rtol=0, atol=1e-4)


def test_export_of_the_encoder_alone(workplace: Path) -> None:
    export = str(ROOT / "scripts" / "export_torchscript.py")
    run(workplace, export, "encoder.weights=random", "frames=lift.zarr", "output=encoder.pt")
    module, metadata = load_artifact(workplace / "encoder.pt")
    frames = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    assert module({"observation.images.camera": frames}).shape == (2, 8 + 16, 192)
    assert metadata["tokens"] == {"global": 8, "grid": [4, 4], "width": 192}


@mark.slow  # 303 M weights are made, encoded with, and loaded again
def test_a_large_encoder_trains_a_few_steps(workplace: Path) -> None:
    """`encoder=pixio_vitl` builds, is cached and trains in 6 GiB; its 303 M weights are random here."""
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
    gibibytes = re.search(r"memory +([\d.]+) GiB at the peak, all processes", done.stdout)
    assert gibibytes is not None and float(gibibytes[1]) < 6


@fixture(scope="module")
def lerobot_dataset(workplace: Path) -> Path:
    convert = str(ROOT / "scripts" / "convert_demos.py")
    run(workplace, convert, "source=lift.zarr", "destination=dataset")
    return workplace / "dataset"


@fixture(scope="module", params=["pixio_act", param("pixio_diffusion", marks=mark.slow)])
def lerobots_checkpoint(request, workplace: Path, lerobot_dataset: Path) -> Path:
    """A policy of ours that `lerobot-train` trained for two steps."""
    run(
        workplace,
        "-m",
        "lerobot.scripts.lerobot_train",
        f"--policy.type={request.param}",
        "--dataset.repo_id=local/dataset",
        f"--dataset.root={lerobot_dataset}",
        "--steps=2",
        "--batch_size=2",
        "--num_workers=0",
        "--env_eval_freq=0",
        f"--output_dir={request.param}",
    )
    return workplace / request.param / "checkpoints" / "last" / "pretrained_model"


def test_a_policy_trained_by_lerobot_is_rolled_out_and_trained_on(workplace: Path, lerobots_checkpoint: Path) -> None:
    run(
        workplace,
        str(ROOT / "scripts" / "train_policy.py"),
        f"start_from={lerobots_checkpoint}",
        "trainer=debug",
        "demos=lerobot",
        "demos.root=dataset",
        "evaluation.episodes=1",
        "evaluation.workers=1",
        f"env.episode_length={EPISODE_LENGTH}",
        "env.image_size=64",
        f"output_root={lerobots_checkpoint.parents[2].name}_on",
    )
    run(
        workplace,
        "-m",
        "lerobot.scripts.lerobot_eval",
        f"--policy.path={lerobots_checkpoint}",
        "--env.type=pixio_robosuite",
        f"--env.episode_length={EPISODE_LENGTH}",
        "--env.image_size=64",
        "--eval.n_episodes=1",
        "--eval.batch_size=1",
        "--output_dir=eval",
    )


def test_a_robot_runs_a_policy_trained_by_lerobot(workplace: Path, lerobots_checkpoint: Path) -> None:
    """`lerobot-rollout` finds a robot plugin without a robot behind it, which notes the actions that it gets."""
    shapes = {
        name: tuple(feature["shape"])
        for name, feature in json.loads((workplace / "dataset" / "meta" / "info.json").read_text())["features"].items()
    }
    actions = workplace / f"actions_of_{lerobots_checkpoint.parents[2].name}.jsonl"
    run(
        workplace,
        "-m",
        "lerobot.scripts.lerobot_rollout",
        "--strategy.type=base",
        f"--policy.path={lerobots_checkpoint}",
        "--robot.type=noting",
        f"--robot.state_size={shapes['observation.state'][0]}",
        f"--robot.action_size={shapes['action'][0]}",
        "--robot.camera_names=[agentview,robot0_eye_in_hand]",
        "--robot.image_size=64",
        f"--robot.notes={actions}",
        f"--robot.calibration_dir={workplace}",
        "--task=lift",
        "--fps=20",
        "--duration=2",
        "--play_sounds=false",
        path=ROOT / "tests" / "helpers" / "robot_plugin",
    )
    noted = np.array([json.loads(line) for line in actions.read_text().splitlines()])
    assert len(noted) > 10
    assert noted.shape[1:] == shapes["action"]
    assert np.isfinite(noted).all()
    assert len(np.unique(noted[:, 0])) > 2  # a new action at every tick, not one for ever
