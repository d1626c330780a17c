"""Videos of rollouts: what the policy's cameras saw, side by side.

Letters of shape suffixes: T time steps, H height, W width, C colours (red, green, blue).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from lerobot.utils.io_utils import write_video

# Cameras of policies are small; enlarged before the encoder halves the colour resolution, they stay pleasant
# to watch.
_VIDEO_HEIGHT = 256


class FrameRecorder(gym.vector.VectorWrapper):
    """Keeps the camera frames of the running episode of a single environment, or saves rendering them.

    While `recording`, frames are the policy's own observations, so recording renders nothing twice. An episode of n
    steps has n + 1 frames, from the reset to the observation after the last action. Otherwise environments that have
    an attribute `render_observations` render only what `policy_looks` says will be looked at.
    """

    env: gym.vector.SyncVectorEnv

    def __init__(self, env: gym.vector.VectorEnv, policy_looks: Callable[[], bool] = lambda: True) -> None:
        super().__init__(env)
        assert isinstance(env, gym.vector.SyncVectorEnv)
        assert env.num_envs == 1
        self.frames: list[dict[str, np.ndarray]] = []
        self.recording = True
        self.policy_looks = policy_looks

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the environment and start a new list of frames."""
        observation, info = self.env.reset(seed=seed, options=options)
        self.frames = [_cameras(observation, 0)] if self.recording else []
        return observation, info

    def step(self, actions: np.ndarray) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step the environment and keep its new frame."""
        inner: Any = self.env.envs[0].unwrapped
        if hasattr(inner, "render_observations"):
            inner.render_observations = self.recording or self.policy_looks()
        observation, reward, terminated, truncated, info = self.env.step(actions)
        # An environment that resets itself in its last step returns the next episode's first observation.
        last = info["final_obs"][0] if "final_obs" in info else None
        if self.recording:
            self.frames.append(_cameras(observation, 0) if last is None else _cameras(last))
        return observation, reward, terminated, truncated, info

    def call(self, name: str, *arguments: object, **keywords: object) -> tuple[Any, ...]:
        """Call a method, or read an attribute, of the environment inside."""
        return self.env.call(name, *arguments, **keywords)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Read an attribute of the environment inside."""
        return self.call(name)


def write_rollout_video(path: Path, frames: Sequence[dict[str, np.ndarray]], fps: int) -> None:
    """Write an H.264 mp4 (yuv420p, which every browser plays) with the cameras side by side.

    Args:
        path: File to write.
        frames: One dict per time step: camera name to uint8 (H, W, C).
        fps: Frames per second.
    """
    videos_THWC = [_enlarge(np.stack([frame[camera] for frame in frames])) for camera in frames[0]]
    write_video(path, list(np.concatenate(videos_THWC, axis=2)), fps)


def _cameras(observation: dict[str, Any], *index: int) -> dict[str, np.ndarray]:
    pixels = observation["pixels"]
    cameras = pixels if isinstance(pixels, dict) else {"camera": pixels}
    return {name: np.array(image[index]) for name, image in cameras.items()}


def _enlarge(video_THWC: np.ndarray) -> np.ndarray:
    height, width = video_THWC.shape[1:3]
    # The encoder wants even sides.
    size = (_VIDEO_HEIGHT, 2 * round(width * _VIDEO_HEIGHT / height / 2))
    video_TCHW = torch.from_numpy(video_THWC).permute(0, 3, 1, 2)
    resized_TCHW = torch.nn.functional.interpolate(video_TCHW, size, mode="bicubic", antialias=True)
    return resized_TCHW.permute(0, 2, 3, 1).numpy()
