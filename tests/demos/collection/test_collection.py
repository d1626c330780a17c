import contextlib
import os
import signal
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from forked_scripts import Program, run_python
from lerobot.envs.configs import PushtEnv
from rich.console import Console
from toy_expert_env import ToyExpertEnvConfig

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore
from pixio_robot.demos.collection.collection import collect, store_path_for
from pixio_robot.environments import env_config_from
from pixio_robot.training import DemosConfig
from pixio_robot.training.data.opening import open_demonstrations


class Screen(Console):
    """A console whose text can be read."""

    def __init__(self) -> None:
        super().__init__(file=StringIO(), width=500)

    @property
    def text(self) -> str:
        assert isinstance(self.file, StringIO)
        return self.file.getvalue()


@pytest.fixture
def screen() -> Screen:
    return Screen()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "demos.zarr"


def assert_same_data(store: DemoStore, other: DemoStore) -> None:
    np.testing.assert_array_equal(store.episode_ends, other.episode_ends)
    np.testing.assert_array_equal(store.episode_seeds, other.episode_seeds)
    np.testing.assert_array_equal(store.episode_success, other.episode_success)
    assert store.episode_tasks == other.episode_tasks
    for key in store.features | other.features:
        np.testing.assert_array_equal(store.read(key, 0, store.num_steps), other.read(key, 0, other.num_steps))
    assert store.fingerprint() == other.fingerprint()


def test_records_what_the_expert_did(path, screen):
    config = ToyExpertEnvConfig()
    store = collect(config, path, 4, first_seed=10, workers=2, console=screen)
    assert store.episode_seeds.tolist() == [10, 11, 12, 13]
    assert store.episode_success.tolist() == [1, 1, 1, 1]
    assert store.episode_tasks == ["bring the point to the goal"] * 4
    for index, seed in enumerate(store.episode_seeds.tolist()):
        # Replayed by hand: the recorded actions reproduce the recorded observations, and then succeed.
        env = config.make_env()
        observation, _ = env.reset(seed=seed)
        episode = store.episode(index)
        assert set(episode) == {
            "observation.images.front",
            "observation.images.wrist",
            "observation.state",
            "action",
        }
        for step, action in enumerate(episode["action"]):
            np.testing.assert_array_equal(episode["observation.images.wrist"][step], observation["pixels"]["wrist"])
            state = observation["agent_pos"].astype(np.float32)
            np.testing.assert_array_equal(episode["observation.state"][step], state)
            observation, _, terminated, _, _ = env.step(action)
        assert terminated
    assert "Collected 4 demonstrations" in screen.text


def test_attributes(path, screen):
    config = ToyExpertEnvConfig(image_size=8)
    store = collect(config, path, 1, workers=1, console=screen)
    attributes = DemoStore.open(path).attributes
    assert store.fps == attributes["fps"] == 10
    assert attributes["env"]["type"] == "pixio_toy_expert"
    assert attributes["env"]["camera_names"] == ["front", "wrist"]
    assert env_config_from(attributes["env"]) == config
    assert attributes["versions"]["numpy"] == np.__version__
    assert attributes["schema_version"] == 1
    assert "lz4" in attributes["codec"]


def test_same_store_for_any_number_of_workers(tmp_path, screen):
    # Seeds 1, 4 and 7 fail: they are dropped and replaced.
    config = ToyExpertEnvConfig(expert_fails_thirds=True)
    stores = [collect(config, tmp_path / f"{n}.zarr", 6, workers=n, console=screen) for n in (1, 2, 4)]
    assert stores[0].episode_seeds.tolist() == [0, 2, 3, 5, 6, 8]
    assert "failed on 3 of 9 seeds" in screen.text
    for store in stores[1:]:
        assert_same_data(stores[0], store)


def test_collects_only_what_is_missing(tmp_path, path):
    config = ToyExpertEnvConfig(expert_fails_thirds=True)
    for n_episodes, says in (
        (2, "Collected 2"),
        (5, "Reusing 2 demonstrations"),
        (5, "Reusing all 5"),
        (3, "3 wanted"),
    ):
        screen = Screen()
        store = collect(config, path, n_episodes, workers=2, console=screen)
        assert says in screen.text
    assert "Collected" not in screen.text
    assert_same_data(store, collect(config, tmp_path / "at_once.zarr", 5, workers=1, console=screen))


@pytest.mark.parametrize(
    ("settings", "first_seed", "differing"),
    [
        ({"image_size": 32}, 0, "image_size is 16 there and 32 here"),
        ({"camera_names": ["front"]}, 0, "camera_names"),
        ({"task": "Push"}, 0, "task"),
        ({"fps": 5}, 0, "fps"),
        ({}, 100, "first_seed"),
    ],
)
def test_store_of_another_environment_is_refused(path, screen, make_store, settings, first_seed, differing):
    collect(ToyExpertEnvConfig(), path, 1, workers=1, console=screen)
    before = DemoStore.open(path).fingerprint()
    with pytest.raises(UserError, match=differing):
        collect(ToyExpertEnvConfig(**settings), path, 2, first_seed=first_seed, workers=1, console=screen)
    assert DemoStore.open(path).fingerprint() == before


def test_crash_of_a_worker_costs_a_retry(tmp_path, path, screen):
    memory = tmp_path / "memory"
    memory.mkdir()
    crashing = collect(ToyExpertEnvConfig(dies_once=[1, 2], memory=str(memory)), path, 4, workers=2, console=screen)
    assert len(list(memory.glob("died_*"))) == 2
    assert_same_data(crashing, collect(ToyExpertEnvConfig(), tmp_path / "b.zarr", 4, workers=2, console=screen))


@pytest.mark.parametrize(("how", "what"), [("dies_always", "SIGKILL"), ("raises_always", "simulation diverged")])
def test_seed_that_crashes_twice_is_named(tmp_path, path, screen, how, what):
    config = ToyExpertEnvConfig(memory=str(tmp_path), **{how: [2]})
    with pytest.raises(UserError, match=f"Seed 2 failed twice.*{what}"):
        collect(config, path, 5, workers=1, console=screen)
    assert DemoStore.open(path).episode_seeds.tolist() == [0, 1]


def test_what_cannot_work_is_said(path, screen, tmp_path):
    with pytest.raises(UserError, match="no GL library: install libegl1"):
        collect(ToyExpertEnvConfig(broken=True), path, 1, workers=1, console=screen)
    with pytest.raises(UserError, match="no scripted expert"):
        collect(PushtEnv(), path, 1, workers=1, console=screen)
    with pytest.raises(UserError, match="failed on 20 seeds in a row"):
        collect(ToyExpertEnvConfig(expert_fails_always=True, episode_length=3), path, 1, workers=2, console=screen)
    assert not path.exists()


def test_never_reaches_seeds_of_evaluation(path, screen):
    with pytest.raises(UserError, match="reached 100000"):
        collect(ToyExpertEnvConfig(), path, 3, first_seed=99_998, workers=2, console=screen)
    assert DemoStore.open(path).episode_seeds.tolist() == [99_998, 99_999]


def test_training_finds_what_was_collected(tmp_path, screen):
    config = ToyExpertEnvConfig()
    collected = collect(config, store_path_for(config, tmp_path / "demos"), 2, workers=1, console=screen)
    found = open_demonstrations(DemosConfig("scripted", episodes=2), config, tmp_path, screen)
    assert found.path == collected.path
    assert "Reusing all 2 demonstrations" in screen.text


def test_full_disk_keeps_finished_demonstrations(tmp_path):
    script = Path(__file__).parents[2] / "helpers" / "collect_on_full_disk.py"
    done = run_python(str(script), str(tmp_path / "disk"), str(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    message, kept = done.stdout.splitlines()
    assert "disk is full" in message
    assert 2 < int(kept) < 1000
    assert_no_process_left(tmp_path)


def workers_of(memory: Path) -> list[int]:
    """Return the processes that made environments."""
    return [int(file.name.removeprefix("process_")) for file in memory.glob("process_*")]


def assert_no_process_left(memory: Path) -> None:
    """Check that the processes that made environments end."""
    pids = workers_of(memory)
    assert pids
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
            return
        time.sleep(0.05)
    raise AssertionError("a worker outlived its parent")


SLOW_COLLECTION = """
import sys
from pixio_robot.common.errors import exits_on_user_error
from pixio_robot.demos.collection.collection import collect
from toy_expert_env import ToyExpertEnvConfig

if __name__ == "__main__":
    config = ToyExpertEnvConfig(step_seconds=0.02, memory=sys.argv[2])
    exits_on_user_error(collect)(config, sys.argv[1], 1000, workers=2)
"""


@contextlib.contextmanager
def slow_collection(path: Path, memory: Path) -> Iterator[Program]:
    """Start a collection of minutes."""
    memory.mkdir()
    with Program(("-c", SLOW_COLLECTION, str(path), str(memory)), memory) as program:
        yield program


def wait_for_episodes(path: Path, n_episodes: int) -> None:
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline:
        with contextlib.suppress(UserError):
            if DemoStore.open(path).num_episodes >= n_episodes:
                return
        time.sleep(0.05)
    raise AssertionError("no demonstrations appear")


def test_stopped_collection_leaves_a_store_and_no_processes(tmp_path, screen):
    paths = {name: tmp_path / f"{name}.zarr" for name in ("interrupted", "killed")}
    with (
        slow_collection(paths["interrupted"], tmp_path / "interrupted") as interrupted,
        slow_collection(paths["killed"], tmp_path / "killed") as killed,
    ):
        wait_for_episodes(paths["killed"], 3)
        os.kill(killed.pid, signal.SIGKILL)
        assert_no_process_left(tmp_path / "killed")

        wait_for_episodes(paths["interrupted"], 2)
        for pid in (interrupted.pid, *workers_of(tmp_path / "interrupted")):  # as Ctrl-C does: the workers get it, too
            os.kill(pid, signal.SIGINT)
        ended = interrupted.ended(timeout=60)
    assert ended.returncode == 130
    assert "Traceback" not in ended.stderr
    assert "run again to go on" in ended.stderr
    assert_no_process_left(tmp_path / "interrupted")
    assert DemoStore.open(paths["interrupted"]).num_episodes >= 2

    # Settings that say how slow the environment is are settings: the store goes on with the same ones only.
    n_kept = DemoStore.open(paths["killed"]).num_episodes
    config = ToyExpertEnvConfig(step_seconds=0.02, memory=str(tmp_path / "killed"))
    continued = collect(config, paths["killed"], n_kept + 2, workers=2, console=screen)
    assert f"Reusing {n_kept} demonstrations" in screen.text
    at_once = collect(ToyExpertEnvConfig(), tmp_path / "at_once.zarr", n_kept + 2, workers=2, console=screen)
    assert_same_data(continued, at_once)
