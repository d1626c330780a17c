"""A LeRobot environment with a scripted expert and without a simulator: bring a point to a goal.

Worker processes import this module when they receive a `ToyExpertEnvConfig`.
"""

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from lerobot.envs import EnvConfig


@EnvConfig.register_subclass("pixio_toy_expert")
@dataclass
class ToyExpertEnvConfig(EnvConfig):
    task: str | None = "Reach"
    fps: int = 10
    camera_names: list[str] = field(default_factory=lambda: ["front", "wrist"])
    image_size: int = 16
    episode_length: int = 30
    # On every third seed the expert stands still; or on all.
    expert_fails_thirds: bool = False
    expert_fails_always: bool = False
    # The process dies in the middle of these episodes: the first time only, or always. The folder remembers, and
    # has a file for each process that made an environment.
    memory: str = ""
    dies_once: list[int] = field(default_factory=list)
    dies_always: list[int] = field(default_factory=list)
    raises_always: list[int] = field(default_factory=list)
    step_seconds: float = 0.0
    broken: bool = False

    @property
    def gym_kwargs(self) -> dict:
        return {}

    def make_env(self) -> "ToyExpertEnv":
        if self.memory:
            (Path(self.memory) / f"process_{os.getpid()}").touch()
        return ToyExpertEnv(self)

    def make_expert(self, seed: int) -> "ToyExpert":
        return ToyExpert(seed, self.expert_fails_always or (self.expert_fails_thirds and seed % 3 == 1))


class ToyExpertEnv(gym.Env):
    task_description = "bring the point to the goal"

    def __init__(self, config: ToyExpertEnvConfig) -> None:
        self._config = config
        self.action_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        if self._config.broken:
            raise ValueError("There is no GL library: install libegl1.")
        super().reset(seed=seed)
        self._seed, self._step = seed, 0
        self.goal = self.np_random.uniform(-1, 1, 2)
        self.position = np.zeros(2)
        return self._observe(), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        time.sleep(self._config.step_seconds)
        self._step += 1
        if self._step == 2:
            self._misbehave()
        self.position = self.position + 0.2 * action + self.np_random.normal(0, 0.01, 2)
        success = bool(np.linalg.norm(self.goal - self.position) < 0.1)
        truncated = not success and self._step >= self._config.episode_length
        return self._observe(), float(success), success, truncated, {"is_success": success}

    def _observe(self) -> dict:
        size = self._config.image_size
        pixels = {}
        for number, camera in enumerate(self._config.camera_names):
            frame = np.full((size, size, 3), 40 * number, np.uint8)
            row, column = (np.clip((self.position + 1) / 2, 0, 1) * (size - 1)).astype(int)
            frame[row, column] = 255
            pixels[camera] = frame
        return {"pixels": pixels, "agent_pos": np.concatenate([self.position, self.goal])}

    def _misbehave(self) -> None:
        if self._seed in self._config.raises_always:
            raise FloatingPointError("the simulation diverged")
        marker = Path(self._config.memory) / f"died_{self._seed}"
        if self._seed in self._config.dies_always or (self._seed in self._config.dies_once and not marker.exists()):
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class ToyExpert:
    def __init__(self, seed: int, fails: bool) -> None:
        self._seed, self._fails = seed, fails

    def reset(self, env: gym.Env) -> None:
        self._rng = np.random.default_rng(self._seed)

    def act(self, observation: dict, info: dict) -> np.ndarray:
        position, goal = np.split(observation["agent_pos"], 2)
        towards = np.zeros(2) if self._fails else (goal - position) * 3
        return np.clip(towards + self._rng.normal(0, 0.1, 2), -1, 1).astype(np.float32)
