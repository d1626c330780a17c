"""Demonstrations by hand: the hands here press keys of the real event loop, or of a virtual screen."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import gymnasium as gym
import numpy as np
import pygame
import pytest
from lerobot.envs import EnvConfig
from virtual_screen import XKeys, virtual_display  # noqa: F401 (a fixture)

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore
from pixio_robot.demos.collection.by_hand.operator_window import OperatorWindow
from pixio_robot.demos.collection.by_hand.teleoperation import record_by_hand
from pixio_robot.demos.collection.collection import collect

ROOT = Path(__file__).parents[4]
SCRIPT = ROOT / "scripts" / "collect_demos.py"
# Seeds whose episode the hand solves; on others it does what is planned for the step.
PLANS: dict[int, dict[int, int | str]] = {
    6: {3: pygame.K_BACKSPACE},
    7: {4: pygame.K_RETURN},
    10: {2: "ctrl-c"},
    11: {2: pygame.K_ESCAPE},
}


@EnvConfig.register_subclass("pixio_toy_hand")
@dataclass
class HandEnvConfig(EnvConfig):
    task: str | None = "Grasp"
    fps: int = 200
    camera_names: list[str] = field(default_factory=lambda: ["front", "wrist"])
    episode_length: int = 3  # far too few for a hand
    action_size: int = 4

    @property
    def gym_kwargs(self) -> dict:
        return {}

    def make_env(self) -> "HandEnv":
        return HandEnv(self.action_size, self.episode_length)

    def make_expert(self, seed: int) -> None:
        raise AssertionError("nobody asked for a script")


class HandEnv(gym.Env):
    """Bring a point to a place on the right and close the fingers there; whoever steps it has a hand on the keys."""

    task_description = "grasp the point"

    def __init__(self, action_size: int, episode_length: int) -> None:
        self.action_space = gym.spaces.Box(-1, 1, (action_size,), np.float32)
        self._length = episode_length

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        self._seed, self._step = seed, 0
        self._position = np.zeros(3)
        self._goal = np.array([-self.np_random.uniform(0.4, 0.8), self.np_random.uniform(0.4, 0.8), 0.0])
        self._held: set[int] = set()
        if seed != 0:  # which is the window's trial
            self._hand()
        return self._observe(), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        if self._step > 1:
            assert pygame.surfarray.array3d(pygame.display.get_surface()).max() > 200, "nothing is drawn"
        self._step += 1
        self._position = self._position + 0.2 * action[:3]
        success = bool(np.abs(self._goal - self._position).max() < 0.07 and action[-1] > 0)
        self._hand()
        return self._observe(), 0.0, success, self._step >= self._length, {"is_success": success}

    def _observe(self) -> dict:
        pixels = {camera: np.full((16, 16, 3), 40 * self._step % 256, np.uint8) for camera in ("front", "wrist")}
        return {"pixels": pixels, "agent_pos": self._position.astype(np.float32)}

    def _hand(self) -> None:
        plan = PLANS.get(self._seed, {})
        if plan.get(self._step) == "ctrl-c":
            os.kill(os.getpid(), signal.SIGINT)
        elif self._step in plan:
            tap(plan[self._step])
        to_go = self._goal - self._position
        wanted = {pygame.K_UP} if to_go[0] < -0.06 else set()
        wanted |= {pygame.K_RIGHT} if to_go[1] > 0.06 else set()
        for key in wanted - self._held:
            pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key))
        for key in self._held - wanted:
            pygame.event.post(pygame.event.Event(pygame.KEYUP, key=key))
        if not wanted and self._held:
            tap(pygame.K_SPACE)
        self._held = wanted


def tap(key: int) -> None:
    for kind in (pygame.KEYDOWN, pygame.KEYUP):
        pygame.event.post(pygame.event.Event(kind, key=key))


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    return tmp_path / "demos.zarr"


def test_episodes_are_kept_on_success_or_by_key_and_the_store_is_as_a_scripted_one(path: Path) -> None:
    store = record_by_hand(HandEnvConfig(), path, 3, "keyboard", first_seed=5)
    assert store is not None
    store = DemoStore.open(path)
    assert store.episode_seeds.tolist() == [5, 7, 8]  # that of seed 6 was discarded
    assert store.episode_success.tolist() == [1, 0, 1]
    assert store.attributes["expert"] == "keyboard"
    assert store.attributes["env"]["episode_length"] == 3
    assert store.fps == 200
    assert store.episode_tasks == ["grasp the point"] * 3
    shapes = {key: (feature.shape, feature.dtype) for key, feature in store.features.items()}
    frame = ((16, 16, 3), "uint8")
    assert shapes == {
        "observation.images.front": frame,
        "observation.images.wrist": frame,
        "observation.state": ((3,), "float32"),
        "action": ((4,), "float32"),
    }
    episode = store.episode(0)
    actions, states = episode["action"], episode["observation.state"]
    assert len(actions) > 5
    # Nothing idle before the first movement, both arrows at once, and the fingers close last.
    np.testing.assert_allclose(actions[0], [-0.3, 0.3, 0.0, -1.0])
    assert actions[:, 3].tolist() == [-1.0] * (len(actions) - 1) + [1.0]
    np.testing.assert_allclose(np.diff(states, axis=0), 0.2 * actions[:-1, :3], atol=1e-6)
    assert [int(image[0, 0, 0]) for image in episode["observation.images.wrist"][:3]] == [0, 40, 80]
    assert len(store.episode(1)["action"]) == 4
    with pytest.raises(UserError, match="expert is 'keyboard' there and 'scripted' here"):
        collect(HandEnvConfig(), path, 4, first_seed=5, workers=1)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_and_escape_keep_what_is_finished(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        record_by_hand(HandEnvConfig(), path, 5, "keyboard", first_seed=9)
    assert DemoStore.open(path).episode_seeds.tolist() == [9]
    monkeypatch.setitem(PLANS, 10, {})
    record_by_hand(HandEnvConfig(), path, 5, "keyboard", first_seed=9)
    assert DemoStore.open(path).episode_seeds.tolist() == [9, 10]


def test_mistakes_are_answered(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="Did you mean 'keyboard'"):
        record_by_hand(HandEnvConfig(), path, 1, "keybord")
    with pytest.raises(UserError, match=r"actions have shape \(14,\)"):
        record_by_hand(HandEnvConfig(action_size=14), path, 1, "keyboard")
    with pytest.raises(UserError, match="knows no device 'spacemouse'"):
        record_by_hand(HandEnvConfig(), path, 1, "spacemouse")
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="no screen"):
        OperatorWindow("nowhere")
    assert not path.exists()


@pytest.mark.slow  # needs Xvfb, which .ci/run installs
def test_on_a_screen_keys_move_the_robot_of_the_real_task(display: str, tmp_path: Path) -> None:
    environment = {**os.environ, "DISPLAY": display, "MUJOCO_GL": os.environ.get("MUJOCO_GL") or "egl"}
    environment.pop("SDL_VIDEODRIVER", None)
    command = [sys.executable, str(SCRIPT), "expert=keyboard", "episodes=2", "output=demos.zarr", "env.image_size=64"]
    log_file = tmp_path / "log.txt"
    with log_file.open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        keys = XKeys(display)
        wait_for(lambda: process.poll() is not None or keys.window_is_there())
        assert process.poll() is None, log_file.read_text()
        keys.hold("Right", 2.0)
        keys.hold("Return", 0.1)
        keys.hold("w", 0.5)
        keys.hold("BackSpace", 0.1)
        keys.hold("Up", 2.0)
        keys.hold("Return", 0.1)
        assert process.wait(timeout=100) == 0, log_file.read_text()
    finally:
        process.kill()
    said = log_file.read_text()
    assert "arrows: away, toward, left, right" in said
    assert "2 demonstrations recorded by keyboard" in said
    store = DemoStore.open(tmp_path / "demos.zarr")
    assert store.episode_seeds.tolist() == [0, 2]
    assert list(store.features) == [
        "observation.images.agentview", "observation.images.robot0_eye_in_hand", "observation.state", "action",
    ]  # fmt: skip
    right, away = store.episode(0), store.episode(1)
    assert right["action"][0].tolist() == pytest.approx([0, 0.3, 0, 0, 0, 0, -1])
    assert away["action"][0].tolist() == pytest.approx([-0.3, 0, 0, 0, 0, 0, -1])
    moved_right, moved_away = (
        episode["observation.state"][-1, :3] - episode["observation.state"][0, :3] for episode in (right, away)
    )
    assert moved_right[1] > 3 * np.abs(moved_right[[0, 2]]).max()
    assert moved_away[0] < -3 * np.abs(moved_away[[1, 2]]).max()


def wait_for(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 200
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.1)
