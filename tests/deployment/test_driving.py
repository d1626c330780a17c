"""Closed loop: an artifact under the runtime does what the eager policy does in evaluation; robots are checked first."""

import io
import json
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from forked_scripts import run_python
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore, Feature
from pixio_robot.demos.formats.conversion import convert
from pixio_robot.deployment.config import Caution
from pixio_robot.deployment.driving import compare_episodes, drive_robot, drive_simulation
from pixio_robot.deployment.export.exporter import ExportOptions, export_policy
from pixio_robot.deployment.runtime import ArtifactPolicy, LockStepClock
from pixio_robot.encoders import EncoderConfig
from pixio_robot.environments import env_config_from
from pixio_robot.evaluation.record import EvaluationRecord
from pixio_robot.evaluation.rollouts.evaluate import evaluate_policy
from pixio_robot.training.policy.building import build_policy, policy_config_from

HELPERS = Path(__file__).parents[1] / "helpers"
# Environments and robots without a simulator or hardware, importable here and in worker processes.
sys.path.append(str(HELPERS / "robot_plugin"))
from toy_plugin import CAMERAS, ToyEnvConfig  # noqa: E402

POLICIES = {
    "pixio_act": {"chunk_size": 6, "n_action_steps": 3, "dim_model": 32, "dim_feedforward": 64},
    "pixio_diffusion": {
        "horizon": 8,
        "n_action_steps": 3,
        "n_obs_steps": 2,
        "down_dims": (16, 32),
        "num_inference_steps": 3,
    },
    "pixio_bc": {"n_obs_steps": 3, "chunk_size": 4, "n_action_steps": 2, "hidden_width": 32},
}
ROBOT = {"type": "noting", "state_size": 2, "action_size": 2, "camera_names": list(CAMERAS), "image_size": 48}


def make_store(
    path: Path,
    cameras: tuple[str, ...],
    sizes: tuple[int, int, int],
    actions: tuple[float, float] = (0.2, 0.3),
    tasks: Sequence[str] = ("toy",),
) -> DemoStore:
    """Write an episode of each task whose actions have a mean and a deviation: the toy's drift into some of its directions."""
    image, state, action = sizes
    features = {
        **{f"observation.images.{name}": Feature((image, image, 3), "uint8") for name in cameras},
        "observation.state": Feature((state,), "float32"),
        "action": Feature((action,), "float32"),
    }
    store = DemoStore.create(path, features, {"fps": 10, "env": {"type": "toy"}})
    generator = np.random.default_rng(0)
    frames = {
        key: generator.integers(0, 256, (40, *features[key].shape), dtype=np.uint8) for key in list(features)[:-2]
    }
    numbers = {
        "observation.state": generator.normal(0, 1, (40, state)),
        "action": generator.normal(*actions, (40, action)),
    }
    episode = {**frames, **{key: value.astype(np.float32) for key, value in numbers.items()}}
    for task in tasks:
        store.append_episode(episode, seed=0, success=True, task=task)
    store.close()
    return DemoStore.open(path)


def make_checkpoint(policy: str, store: DemoStore, folder: Path) -> Path:
    torch.manual_seed(0)
    config = policy_config_from({"type": policy, **POLICIES[policy]}, EncoderConfig("pixio_tiny16", "random"), store)
    config.device = "cpu"  # where the artifact is: on a GPU, TF32 would lead to slightly other episodes
    built, processors = build_policy(config, store)
    for part in (built, *processors):
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> DemoStore:
    return make_store(tmp_path_factory.mktemp("demos") / "toy.zarr", CAMERAS, (32, 2, 2))


@pytest.fixture(scope="module", params=["pixio_act", "pixio_diffusion"])
def exported(
    request: pytest.FixtureRequest, store: DemoStore, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A checkpoint and its artifact."""
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint = make_checkpoint(request.param, store, folder / "pretrained_model")
    options = ExportOptions(control_rate_hz=10)
    export_policy(checkpoint, store, folder / "policy.pt", options)
    return checkpoint, folder / "policy.pt"


def quiet() -> Console:
    return Console(file=io.StringIO(), width=400)


def test_every_episode_ends_as_with_the_eager_policy(exported: tuple[Path, Path], tmp_path: Path) -> None:
    checkpoint, artifact = exported
    seeds = range(100, 112)
    eager = evaluate_policy(checkpoint, ToyEnvConfig(), seeds, workers=1, console=quiet())
    assert 0 < eager.n_successes < len(seeds)  # or the comparison would say little
    given = {"mode": "synchronous", "name": "", "rate": None, "dry_run": False, "console": quiet()}
    ours = drive_simulation(ArtifactPolicy(artifact), ToyEnvConfig(), seeds, realtime=False, **given)
    assert ours is not None
    for theirs, mine in zip(eager.episodes, ours.episodes, strict=True):
        assert (mine.seed, mine.success, mine.steps) == (theirs.seed, theirs.success, theirs.steps)
        assert mine.total_reward == pytest.approx(theirs.total_reward, abs=1e-3)
    eager.save(tmp_path / "evaluation.json")
    assert "12 of 12 episodes end alike, 12 of them after the same" in compare_episodes(
        ours, tmp_path / "evaluation.json"
    )


def test_several_tasks_are_told_by_the_runtime_as_by_evaluation(tmp_path: Path) -> None:
    tasks = ["push the point", "pull the point"]
    store = make_store(tmp_path / "two.zarr", CAMERAS, (32, 2, 2), tasks=tasks)
    checkpoint = make_checkpoint("pixio_bc", store, tmp_path / "pretrained_model")
    export_policy(checkpoint, store, tmp_path / "policy.pt", ExportOptions(control_rate_hz=10))
    env, seeds = ToyEnvConfig(task_descriptions=tasks), range(100, 106)
    eager = evaluate_policy(checkpoint, env, seeds, workers=1, batch_size=2, console=quiet())
    assert [episode.task for episode in eager.episodes] == tasks * 3
    assert [episodes for _, episodes in eager.tasks.values()] == [3, 3]
    assert "mean over 2 tasks" in eager.summary() and "of 3)  pull the point" in eager.summary()
    eager.save(tmp_path / "evaluation.json")
    assert EvaluationRecord.load(tmp_path / "evaluation.json").tasks == eager.tasks
    given = {"mode": "synchronous", "name": "", "rate": None, "dry_run": False, "console": quiet()}
    ours = drive_simulation(ArtifactPolicy(tmp_path / "policy.pt"), env, seeds, realtime=False, **given)
    assert ours is not None
    returns = [[episode.total_reward for episode in record.episodes] for record in (eager, ours)]
    assert returns[1] == pytest.approx(returns[0], abs=1e-3)
    assert ours.tasks.keys() == eager.tasks.keys()
    with pytest.raises(UserError, match="trained on 2 tasks, and 'lift the point' is none of them"):
        evaluate_policy(checkpoint, ToyEnvConfig(task_descriptions=["lift the point"]), seeds, workers=1)


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_simulated_episodes_go_as_with_the_eager_policy(policy: str, tmp_path: Path) -> None:
    """PushT, whose return tells trajectories apart where none succeeds: a push that differs covers another share."""
    store = make_store(tmp_path / "pusht.zarr", ("top",), (64, 2, 2), actions=(256, 90))
    checkpoint = make_checkpoint(policy, store, tmp_path / "pretrained_model")
    options = ExportOptions(control_rate_hz=10)
    export_policy(checkpoint, store, tmp_path / "policy.pt", options)
    env, seeds = env_config_from({"type": "pixio_pusht", "image_size": 64, "episode_length": 80}), range(100, 105)
    eager = evaluate_policy(checkpoint, env, seeds, workers=1, console=quiet())
    given = {"mode": "synchronous", "name": "", "rate": None, "dry_run": False, "console": quiet()}
    ours = drive_simulation(ArtifactPolicy(tmp_path / "policy.pt"), env, seeds, realtime=False, **given)
    assert ours is not None
    returns = [[episode.total_reward for episode in record.episodes] for record in (eager, ours)]
    assert len(set(returns[0])) == len(seeds)
    assert returns[1] == pytest.approx(returns[0], rel=1e-3)
    for theirs, mine in zip(eager.episodes, ours.episodes, strict=True):
        assert (mine.seed, mine.success, mine.steps) == (theirs.seed, theirs.success, theirs.steps)


@pytest.mark.parametrize("exported", ["pixio_act"], indirect=True)
def test_what_does_not_fit_is_refused_before_the_first_action(exported: tuple[Path, Path], tmp_path: Path) -> None:
    policy = ArtifactPolicy(exported[1])
    simulated = {"name": "", "rate": None, "dry_run": False, "console": quiet()}
    for config, mode, realtime, message in (
        (ToyEnvConfig(camera_names=["front"]), "synchronous", True, "reads observation.images.wrist"),
        (ToyEnvConfig(action_size=3), "synchronous", True, "takes actions of 3 numbers"),
        (ToyEnvConfig(fps=20), "synchronous", True, "acts at 10 Hz, the simulated task runs at 20 Hz"),
        (ToyEnvConfig(), "asynchronous", False, "set realtime=true"),
        (ToyEnvConfig(), "sync", True, "Did you mean 'synchronous'"),
    ):
        with pytest.raises(UserError, match=message):
            drive_simulation(policy, config, [1], mode=mode, realtime=realtime, **simulated)
    notes = tmp_path / "actions.jsonl"
    for fields, cameras, message in (
        ({"state_size": 3}, {}, "state has 2 numbers, but the robot's has 3"),
        ({"action_size": 3}, {}, "action has 2 numbers, but the robot's has 3"),
        ({"camera_names": ["front"]}, {}, "reads observation.images.wrist, but the robot offers"),
        ({}, {"wrist": "rist"}, "Did you mean 'wrist'"),
        ({"type": "notign"}, {}, "Did you mean 'noting'"),
        ({"stat_size": 2}, {}, "cannot be made"),
    ):
        with pytest.raises(UserError, match=message):
            drive_robot(
                policy,
                {**ROBOT, "notes": str(notes), **fields},
                cameras=cameras,
                mode="synchronous",
                seconds=1,
                rate=None,
                dry_run=False,
                console=quiet(),
                caution=Caution(names="robot"),
            )
    assert not notes.exists()


class Leisurely(LockStepClock):
    """Waits in every period for inferences that are under way, on a busy machine, too."""

    def __init__(self, policy: ArtifactPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self._predict, self._busy = policy.predict, threading.Lock()
        monkeypatch.setattr(policy, "predict", self._predict_alone)

    def _predict_alone(self, stacked: dict[str, np.ndarray], chunk: int, seed: int) -> np.ndarray:
        with self._busy:
            return self._predict(stacked, chunk, seed)

    def sleep_until(self, moment: float) -> None:
        if moment > self.now():
            time.sleep(0.05)
            with self._busy:
                super().sleep_until(moment)


@pytest.mark.parametrize("exported", ["pixio_act"], indirect=True)
@pytest.mark.parametrize("mode", ["synchronous", "ensemble", "asynchronous"])
def test_a_lerobot_robot_is_driven_and_a_dry_run_sends_nothing(
    exported: tuple[Path, Path], mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "actions.jsonl"
    description = {**ROBOT, "notes": str(notes), "camera_names": ["front", "hand"], "calibration_dir": str(tmp_path)}
    policy = ArtifactPolicy(exported[1])

    def drive(dry_run: bool) -> str:
        console = quiet()
        given = {"mode": mode, "seconds": 1, "rate": None, "console": console, "caution": Caution(names="robot")}
        clock = Leisurely(policy, monkeypatch) if mode == "asynchronous" else LockStepClock()
        assert drive_robot(policy, description, cameras={"wrist": "hand"}, dry_run=dry_run, clock=clock, **given)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()

    said = drive(dry_run=True)
    assert not notes.exists()
    table = said[said.index("would be sent") :].splitlines()
    assert "joint_1.pos" in table[2] and "may be driven; nothing was sent" in said
    assert "10 control periods" in drive(dry_run=False)
    sent = np.array([json.loads(line) for line in notes.read_text().splitlines()])
    assert len(sent) >= (2 if mode == "asynchronous" else 11)  # the last is a hold
    low, high = (policy.metadata["action"][side] for side in ("minimum", "maximum"))
    assert np.isfinite(sent).all() and (sent >= np.array(low) - 1e-6).all() and (sent <= np.array(high) + 1e-6).all()


@pytest.mark.slow
def test_lerobots_tools_drive_the_simulated_robot(tmp_path: Path) -> None:
    """`lerobot-rollout`, `-record`, `-replay` and `-edit-dataset`; nothing but the installed plugins names the robot."""
    cameras = ("agentview", "robot0_eye_in_hand")
    checkpoint = make_checkpoint(
        "pixio_act", make_store(tmp_path / "lift.zarr", cameras, (64, 9, 7)), tmp_path / "pretrained_model"
    )
    robot = ["--robot.type=pixio_sim", "--robot.env=pixio_robosuite", "--robot.image_size=64"]
    robot += ["--robot.episode_length=15", f"--robot.calibration_dir={tmp_path}", "--play_sounds=false"]
    rollout = ["--strategy.type=base", f"--policy.path={checkpoint}", "--task=lift", "--fps=20", "--duration=8"]
    said = _run("rollout", *rollout, *robot, "--robot.next_by_itself=true", cwd=tmp_path)
    assert "seed 0: failure; the next episode begins" in said
    assert "Returning robot to initial position" in said and "Could not return" not in said
    for name, deltas in (("swaying", "false"), ("deltas", "true")):
        own = "x.vel,y.vel,z.vel,roll.vel,pitch.vel,yaw.vel,gripper.pos"
        record = [f"--teleop.names=[{'delta_x,delta_y,delta_z,gripper' if deltas == 'true' else own}]"]
        record += ["--teleop.type=swaying", f"--robot.by_deltas={deltas}", f"--robot.recording={tmp_path / name}"]
        record += [f"--dataset.repo_id=local/{name}", f"--dataset.root={tmp_path / name}", "--dataset.single_task=sway"]
        record += ["--dataset.num_episodes=2", "--dataset.episode_time_s=2", "--dataset.reset_time_s=1"]
        record += ["--dataset.fps=20", "--dataset.push_to_hub=false", "--dataset.video=false"]
        _run("record", *record, *robot, cwd=tmp_path)
    convert(str(tmp_path / "swaying"), str(tmp_path / "sway.zarr"))
    assert DemoStore.open(tmp_path / "sway.zarr").episode_seeds.tolist() == [0, 1]
    convert(str(tmp_path / "sway.zarr"), str(tmp_path / "converted"), use_videos=False)
    names = ("swaying", "deltas", "converted")
    merge = [f"--operation.repo_ids=[{','.join(f'local/{name}' for name in names)}]", "--operation.type=merge"]
    merge += [f"--operation.roots=[{','.join(str(tmp_path / name) for name in names)}]", "--new_repo_id=local/merged"]
    _run("edit_dataset", *merge, f"--new_root={tmp_path / 'merged'}", cwd=tmp_path)
    info = json.loads((tmp_path / "merged" / "meta" / "info.json").read_text())
    assert info["total_episodes"] == 6 and "next.success" in info["features"]
    assert info["features"]["observation.state"]["shape"] == [9] and info["features"]["action"]["shape"] == [7]
    assert info["features"]["observation.images.agentview"]["shape"] == [64, 64, 3]
    replay = ["--dataset.repo_id=local/converted", f"--dataset.root={tmp_path / 'converted'}", "--dataset.episode=1"]
    _run("replay", *replay, *robot, cwd=tmp_path)


def _run(tool: str, *arguments: str, cwd: Path) -> str:
    environment = {"PYTHONPATH": str(HELPERS / "robot_plugin"), "HF_HUB_OFFLINE": "1", "HF_HOME": str(cwd)}
    done = run_python("-m", f"lerobot.scripts.lerobot_{tool}", *arguments, cwd=cwd, environment=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr
