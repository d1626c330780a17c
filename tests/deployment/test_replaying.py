"""A recorded episode drives the simulation that it comes from as it did then, and a robot under a policy's guard."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from recorded_dataset import JOINTS, record_dataset
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore
from pixio_robot.demos.collection.collection import append_demonstration, new_store
from pixio_robot.demos.collection.recording import record_demonstration
from pixio_robot.demos.formats.conversion import convert
from pixio_robot.demos.recorded import read_recorded
from pixio_robot.deployment.config import Caution
from pixio_robot.deployment.replaying import RecordedPolicy, replay_in_simulation, replay_on_robot, simulation_of
from pixio_robot.deployment.runtime import LockStepClock
from pixio_robot.environments import describe_env

sys.path.append(str(Path(__file__).parents[1] / "helpers" / "robot_plugin"))
from toy_plugin import ToyEnv, ToyEnvConfig


class Pusher:
    """Pushes the toy's point to where it belongs, or away from there."""

    def __init__(self, strength: float) -> None:
        self._strength = strength

    def reset(self, env: ToyEnv) -> None:
        self._direction = env._direction

    def act(self, observation: dict, info: dict) -> np.ndarray:
        return (self._strength * self._direction).astype(np.float32)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> DemoStore:
    """A success of seed 7 and a failure of seed 8."""
    env_config = ToyEnvConfig()
    env, store = ToyEnv(env_config), None
    for seed, strength in ((7, 0.4), (8, -0.1)):
        demonstration = record_demonstration(env, Pusher(strength), seed)
        if store is None:
            attributes = {"fps": 10, "env": describe_env(env_config)}
            store = new_store(tmp_path_factory.mktemp("demos") / "toy.zarr", demonstration, attributes, "lossless")
        append_demonstration(store, demonstration)
    assert store is not None
    store.close()
    return DemoStore.open(store.path)


def replay(path: Path, number: int, folder: Path | None, **fields: object) -> tuple[str, object]:
    console = Console(file=io.StringIO(), width=400)
    episode = read_recorded(path, number)
    env_config = simulation_of(episode, describe_env(ToyEnvConfig(**fields)) if fields else {})
    record = replay_in_simulation(
        episode, env_config, realtime=False, dry_run=folder is None, videos=folder, console=console
    )
    return console.file.getvalue(), record


def test_a_replay_goes_as_the_recording_did(store: DemoStore, tmp_path: Path) -> None:
    assert store.episode_success.tolist() == [1, 0]
    convert(store.path, tmp_path / "dataset", use_videos=False)
    for path in (store.path, tmp_path / "dataset"):
        for number, outcome in ((0, "success"), (1, "failure")):
            said, record = replay(path, number, tmp_path / "videos")
            steps = len(store.episode_range(number))
            assert f"replay: {outcome} (as recorded), {steps} of {steps} recorded steps" in said
            assert "the state is at most 0 from the recorded one" in said
            assert record.episodes[0].video == f"videos/{7 + number}_{outcome}.mp4"
            assert (tmp_path / record.episodes[0].video).stat().st_size > 0


def test_a_replay_that_goes_otherwise_says_so(store: DemoStore, tmp_path: Path) -> None:
    said, _ = replay(store.path, 0, tmp_path / "videos", perturbation="far")
    assert "replay: failure (recorded: success)" in said
    said, record = replay(store.path, 0, None)
    assert record is None and "may be driven; nothing was sent" in said
    with pytest.raises(UserError, match="recorded at 10 Hz, and the environment runs at 20 Hz"):
        replay(store.path, 0, tmp_path, fps=20)
    with pytest.raises(UserError, match="has no episode 2: it has 0 to 1; the nearest is episode=1"):
        read_recorded(store.path, 2)


def test_a_drifting_state_is_seen(store: DemoStore) -> None:
    episode = read_recorded(store.path, 0)
    policy = RecordedPolicy(episode, wait=2)
    for chunk in range(policy.steps + 1):
        step = min(max(chunk - 2, 0), len(episode.actions_T) - 1)
        state = episode.states_T[step] + (0.25 if chunk == 4 else 0)
        action = policy.predict({"observation.state": state[None]}, chunk)
        assert action.shape == (1, 2) and np.array_equal(action[0], episode.actions_T[step])
    assert "at most 0.25 from the recorded one" in policy.comparison() and "step 2" in policy.comparison()


def test_an_arm_comes_to_where_an_episode_begins_and_follows_it(tmp_path: Path) -> None:
    record_dataset(tmp_path / "reach", episodes=2, steps=20, video=False)
    with pytest.raises(UserError, match="episode 1 of .*reach does not say which simulation it comes from: name one"):
        simulation_of(read_recorded(tmp_path / "reach", 1), {})
    episode = read_recorded(tmp_path / "reach", 1)
    assert episode.names["action"] == JOINTS and len(episode.actions_T) == 21
    joints, notes = [*reversed(JOINTS)], tmp_path / "actions.jsonl"
    apart = np.clip(episode.actions_T[0] + 8, episode.moves["minimum"], episode.moves["maximum"])
    stands = [float(number) for number in apart[::-1]]
    arm = {"type": "noting", "joints": joints, "stands": stands, "notes": str(notes), "calibration_dir": str(tmp_path)}

    def drive(dry_run: bool, **fields: object) -> str:
        console = Console(file=io.StringIO(), width=400)
        given = {"approach": 2, "console": console, "clock": LockStepClock(), "caution": Caution(ramp=1)}
        assert replay_on_robot(episode, arm | fields, dry_run=dry_run, **given)
        return console.file.getvalue()

    assert "slowed to the step" in drive(dry_run=True) and not notes.exists()
    assert "replay: the state is at most" in drive(dry_run=False)
    sent = np.array([json.loads(line) for line in notes.read_text().splitlines()])[:, ::-1]
    assert len(sent) == 60 + 21 + 1  # the approach, the episode, a hold
    assert (np.abs(np.diff(sent, axis=0)).max(axis=0) <= 1.5 * np.array(episode.moves["largest_change"]) + 1e-4).all()
    assert sent[60:81] == pytest.approx(episode.actions_T, abs=1e-4)
    with pytest.raises(UserError, match="The demonstrations' state is shoulder_pan.pos.*but the robot's is elbow.pos"):
        drive(dry_run=True, joints=["elbow.pos"])
