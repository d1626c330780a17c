"""Episodes side by side in one process: each has an environment of its own, and all share the policy's calls."""

import math
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array


@dataclass
class RunningEpisode:
    """What became of a row so far.

    Attributes:
        seed: What its environment was reset with.
        recording: Whether to keep its camera frames.
        frames: Of each instant, camera name to uint8 (H, W, C), from the reset to the observation after the last action.
        steps: Actions executed.
        rewards: One each step.
        success: Whether the environment reported success at any step.
        seconds: Wall time from the reset to its end, other rows' work included.
        over: Whether it ended, by itself or by an exception.
        error: The exception, in a line.
        traceback: All of it.
    """

    seed: int
    recording: bool
    frames: list[dict[str, np.ndarray]] = field(default_factory=list)
    steps: int = 0
    rewards: list[float] = field(default_factory=list)
    success: bool = False
    seconds: float = 0.0
    over: bool = False
    error: str | None = None
    traceback: str = ""

    @property
    def total_reward(self) -> float:
        """Sum of the rewards, which does not depend on what ran beside the episode."""
        return math.fsum(self.rewards)


class EpisodeBatch(gym.vector.VectorEnv):
    """A vectorised environment that runs one episode in each row, once.

    A row whose episode is over is neither simulated nor rendered any more: its last observation stays. So it is with a
    row that was reset without a seed, which has no episode and shows zeros: a policy can be called with the same number
    of rows however many episodes there are. An environment that raises ends its own episode; the others go on.

    Frames are the policy's own observations, so recording renders nothing twice. Environments that have an attribute
    `render_observations` render only what is recorded and what `policy_looks` says will be looked at.

    Args:
        envs: Environments with the same spaces. They are not reset here: what they make lazily is made when a row first
            gets an episode.
    """

    def __init__(self, envs: Sequence[gym.Env]) -> None:
        assert envs
        self.envs = list(envs)
        self.num_envs = len(envs)
        self.metadata = dict(envs[0].metadata)
        self.render_mode = envs[0].render_mode
        self.single_observation_space, self.single_action_space = envs[0].observation_space, envs[0].action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.policy_looks: Callable[[], bool] = lambda: True
        self.recording = [False] * self.num_envs
        self.episodes: list[RunningEpisode | None] = []
        self._observations: list[Any] = []
        self._start = 0.0

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode in each row that has a seed; `recording` says whose frames are kept."""
        assert isinstance(seed, list) and len(seed) == self.num_envs
        self._start = time.perf_counter()
        empty = create_empty_array(self.single_observation_space, n=1, fn=np.zeros)
        self._observations = [_row(empty, 0) for _ in self.envs]
        self.episodes = [
            None if number is None else RunningEpisode(number, recording)
            for number, recording in zip(seed, self.recording, strict=True)
        ]
        for row, episode in self._running():
            try:
                self._observations[row], _ = self.envs[row].reset(seed=episode.seed, options=options)
            except Exception as error:  # whatever a simulator raises costs its own episode alone
                self._end(episode, error)
                continue
            if episode.recording:
                episode.frames.append(_cameras(self._observations[row]))
        return self._batched(), {}

    def step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Execute an action in each row that is not over; the others are terminated and have no reward."""
        rewards = np.zeros(self.num_envs)
        truncated = np.zeros(self.num_envs, bool)
        successes = np.zeros(self.num_envs, bool)
        policy_looks = self.policy_looks()
        for row, episode in self._running():
            inner: Any = self.envs[row].unwrapped
            if hasattr(inner, "render_observations"):
                inner.render_observations = episode.recording or policy_looks
            try:
                observation, reward, ends, cut, info = self.envs[row].step(actions[row])
            except Exception as error:  # as above
                self._end(episode, error)
                continue
            self._observations[row] = observation
            rewards[row], truncated[row] = reward, cut
            successes[row] = bool(info.get("is_success", False))
            episode.steps += 1
            episode.rewards.append(float(reward))
            episode.success |= bool(successes[row])
            if episode.recording:
                episode.frames.append(_cameras(observation))
            if ends or cut:
                self._end(episode)
        terminated = np.array([episode is None or episode.over for episode in self.episodes]) & ~truncated
        return self._batched(), rewards, terminated, truncated, {"is_success": successes}

    def call(self, name: str, *arguments: object, **keywords: object) -> tuple[Any, ...]:
        """Call a method, or read an attribute, of every environment."""
        found = [env.get_wrapper_attr(name) for env in self.envs]
        return tuple(value(*arguments, **keywords) if callable(value) else value for value in found)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Read an attribute of every environment."""
        return self.call(name)

    def finish(self) -> list[RunningEpisode]:
        """Return the episodes of all rows that have one, in order, and let go of them."""
        for _, episode in self._running():  # those whose end the caller's limit of steps was
            self._end(episode)
        finished = [episode for episode in self.episodes if episode is not None]
        self.episodes = []
        return finished

    def _running(self) -> list[tuple[int, RunningEpisode]]:
        return [(row, episode) for row, episode in enumerate(self.episodes) if episode is not None and not episode.over]

    def _end(self, episode: RunningEpisode, error: Exception | None = None) -> None:
        episode.over = True
        episode.seconds = time.perf_counter() - self._start
        if error is not None:
            episode.error = f"{type(error).__name__}: {error}"
            episode.traceback = "".join(traceback.format_exception(error))

    def _batched(self) -> Any:  # noqa: ANN401 (a dict of arrays, or an array)
        out = create_empty_array(self.single_observation_space, n=self.num_envs, fn=np.zeros)
        return concatenate(self.single_observation_space, self._observations, out)


def _row(batched: Any, row: int) -> Any:  # noqa: ANN401
    """Return one row of a batched observation."""
    if isinstance(batched, dict):
        return {name: _row(value, row) for name, value in batched.items()}
    return batched[row]


def _cameras(observation: dict[str, Any]) -> dict[str, np.ndarray]:
    pixels = observation["pixels"]
    cameras = pixels if isinstance(pixels, dict) else {"camera": pixels}
    return {name: np.array(image) for name, image in cameras.items()}
