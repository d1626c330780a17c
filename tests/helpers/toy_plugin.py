"""A LeRobot environment without a simulator, for tests: push a point in the direction that the cameras show.

Worker processes import this module when they receive a `ToyEnvConfig`, which registers it there, too.
"""

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs import EnvConfig
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

CAMERAS = ("front", "wrist")


@EnvConfig.register_subclass("pixio_toy")
@dataclass
class ToyEnvConfig(EnvConfig):
    task: str | None = "Push"
    fps: int = 10
    image_size: int = 32
    action_size: int = 2
    camera_names: list[str] = field(default_factory=lambda: list(CAMERAS))
    render_profile: str = "plain"
    episode_length: int = 12
    # The process dies, or hangs, in the middle of these episodes: the first time only, or always. The folder remembers.
    dies_once: list[int] = field(default_factory=list)
    dies_always: list[int] = field(default_factory=list)
    hangs_once: list[int] = field(default_factory=list)
    hangs_always: list[int] = field(default_factory=list)
    raises_always: list[int] = field(default_factory=list)
    memory: str = ""
    broken: bool = False
    task_descriptions: list[str] = field(default_factory=lambda: ["push the point"])  # several: one by each seed
    perturbation: str = "none"  # or far: success is further away

    def __post_init__(self) -> None:
        if self.perturbation not in ("none", "far"):
            raise ValueError(f"unknown perturbation {self.perturbation!r}: did you mean 'far'?")
        if self.episode_length < 1:
            raise ValueError("episode_length must be at least 1.")
        self.features = {
            ACTION: PolicyFeature(FeatureType.ACTION, (self.action_size,)),
            "agent_pos": PolicyFeature(FeatureType.STATE, (2,)),
        }
        self.features_map = {ACTION: ACTION, "agent_pos": OBS_STATE}
        for camera in self.camera_names:
            shape = (self.image_size, self.image_size, 3)
            self.features[f"pixels/{camera}"] = PolicyFeature(FeatureType.VISUAL, shape)
            self.features_map[f"pixels/{camera}"] = f"{OBS_IMAGES}.{camera}"

    @property
    def gym_kwargs(self) -> dict:
        return {}

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict[str, dict[int, gym.vector.VectorEnv]]:
        if self.broken:
            raise ValueError("There is no GL library: install libegl1.")
        mode = gym.vector.AutoresetMode.SAME_STEP
        return {self.type: {0: gym.vector.SyncVectorEnv([lambda: ToyEnv(self)] * n_envs, autoreset_mode=mode)}}


class ToyEnv(gym.Env):
    metadata = {"render_fps": 10, "render_modes": ["rgb_array"]}  # noqa: RUF012 (gymnasium's own declaration)
    render_mode = "rgb_array"
    task = "Push"
    task_description = "push the point"

    def __init__(self, config: ToyEnvConfig) -> None:
        self._config = config
        self.render_observations = True
        self._max_episode_steps = config.episode_length
        size = config.image_size
        pixels = {name: gym.spaces.Box(0, 255, (size, size, 3), np.uint8) for name in config.camera_names}
        self.observation_space = gym.spaces.Dict(
            {
                "pixels": gym.spaces.Dict(pixels),
                "agent_pos": gym.spaces.Box(-np.inf, np.inf, (2,), np.float32),
            }
        )
        self.action_space = gym.spaces.Box(-1, 1, (config.action_size,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        self._seed, self._step = seed, 0
        sentences = self._config.task_descriptions
        self.task_description = sentences[(seed or 0) % len(sentences)]
        angle = self.np_random.uniform(0, 2 * np.pi)
        self._direction = np.array([np.cos(angle), np.sin(angle)])
        self._position = np.zeros(2)
        self._pixels = self._rendered()
        return self._observe(), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        self._step += 1
        if self._step == 3:
            self._misbehave()
        self._position = self._position + action[:2] + self.np_random.normal(0, 0.2, 2)
        if self.render_observations:
            self._pixels = self._rendered()
        reward = float(self._position @ self._direction)
        success = reward > (2.5 if self._config.perturbation == "far" else 1.5)
        truncated = self._step >= self._config.episode_length
        return self._observe(), reward, success, truncated, {"is_success": success}

    def render(self) -> np.ndarray:
        return self._pixels[self._config.camera_names[0]]

    def _rendered(self) -> dict[str, np.ndarray]:
        size = self._config.image_size
        # The first camera's brightness counts the steps, so that a test can read them off a video.
        front = np.full((size, size, 3), 20 * self._step, np.uint8)
        wrist = np.zeros((size, size, 3), np.uint8)
        row, column = (size // 2 + self._direction * size / 3).astype(int)
        wrist[row - 2 : row + 3, column - 2 : column + 3] = 255
        pixels = dict.fromkeys(self._config.camera_names, wrist)
        pixels[self._config.camera_names[0]] = front
        return pixels

    def _observe(self) -> dict:
        return {"pixels": dict(self._pixels), "agent_pos": self._position.astype(np.float32)}

    def _misbehave(self) -> None:
        if self._seed in self._config.raises_always:
            raise FloatingPointError("the simulation diverged")
        is_first = False
        if self._seed in self._config.dies_once + self._config.hangs_once:
            marker = Path(self._config.memory) / f"misbehaved_{self._seed}"
            is_first = not marker.exists()
            marker.touch()
        if self._seed in self._config.dies_always or (self._seed in self._config.dies_once and is_first):
            os.kill(os.getpid(), signal.SIGKILL)
        if self._seed in self._config.hangs_once and is_first:
            os.kill(os.getpid(), signal.SIGSTOP)  # hears nothing any more, SIGTERM neither
        if self._seed in self._config.hangs_always:
            time.sleep(3600)
