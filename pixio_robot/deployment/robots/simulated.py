"""Any LeRobot environment as a robot.

Shape letters: S state size, A action size.
"""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from lerobot.envs import EnvConfig
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE
from lerobot.utils.random_utils import set_seed

from pixio_robot.common.errors import UserError
from pixio_robot.deployment.runtime import CameraSource, Observation


class SimulatedRobot:
    """A robot in a simulated task. Its time is the simulation's, which moves by one control period with every action."""

    def __init__(self, config: EnvConfig) -> None:
        """Open the environment.

        Raises:
            UserError: It cannot start, or holds several tasks.
        """
        try:
            suites = config.create_envs(n_envs=1)
        except ValueError as error:  # a plugin's own words
            raise UserError(str(error)) from error
        tasks = [env for suite in suites.values() for env in suite.values()]
        if len(tasks) != 1 or not isinstance(tasks[0], gymnasium.vector.SyncVectorEnv):
            raise UserError(f"The environment {config.type!r} has several tasks: choose one.")
        self._vector_env = tasks[0]
        self._env: gymnasium.Env = tasks[0].envs[0]
        self._period = 1 / config.fps
        spaces: Any = self._env.observation_space
        self.cameras: Mapping[str, CameraSource] = {
            f"{OBS_IMAGES}.{name}": CameraSource(*box.shape[:2]) for name, box in spaces["pixels"].items()
        }
        self.state_size: int | None = spaces["agent_pos"].shape[0] if "agent_pos" in spaces.spaces else None
        self.action_size: int = config.features[ACTION].shape[0]
        self.max_steps: int = self._env.unwrapped._max_episode_steps  # type: ignore[attr-defined]  # LeRobot's contract
        self.is_over = True
        self.task: str | None = None
        self.success = False
        self.steps = 0
        self.total_reward = 0.0
        self.frames: list[dict[str, np.ndarray]] = []

    def reset(self, seed: int, keep_frames: bool = False) -> None:
        """Begin the episode of a seed, the same as in evaluation; `frames` grow where they are kept."""
        set_seed(seed)
        self._observed, _ = self._env.reset(seed=seed)
        self._keeps_frames, self.frames = keep_frames, []
        self._keep_frame()
        self.task = getattr(self._env.unwrapped, "task_description", None)
        self.is_over = self.success = False
        self.steps, self.total_reward = 0, 0.0

    def observe(self) -> Observation:
        """Return the frames and the state after the last action."""
        values = {f"{OBS_IMAGES}.{name}": frame for name, frame in self._observed["pixels"].items()}
        if self.state_size is not None:
            values[OBS_STATE] = np.asarray(self._observed["agent_pos"], dtype=np.float32)
        return Observation(values, time=self.steps * self._period)

    def send(self, action: np.ndarray) -> None:
        """Simulate one control period."""
        self._observed, reward, terminated, truncated, info = self._env.step(action)
        self._keep_frame()
        self.steps += 1
        self.total_reward += float(reward)
        self.success |= bool(info["is_success"])
        self.is_over = bool(terminated or truncated)

    def _keep_frame(self) -> None:
        if self._keeps_frames:
            self.frames.append({name: frame.copy() for name, frame in self._observed["pixels"].items()})

    def close(self) -> None:
        """Free the simulation."""
        self._vector_env.close()
