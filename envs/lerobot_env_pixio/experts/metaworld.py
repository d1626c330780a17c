"""Meta-World's own scripted policies as demonstrators."""

import warnings
from typing import Any

import gymnasium
import numpy as np

from lerobot_env_pixio.experts.base import BurstNoise


class MetaworldExpert:
    """Meta-World's own scripted policy for a task, with noise in its recorded actions.

    Args:
        task: Meta-World's name of the task.
        seed: Decides the noise.
        noise: Factor on it; 0 is the policy as it is.
    """

    def __init__(self, task: str, seed: int, noise: float = 1.0) -> None:
        self._task, self._seed, self._strength = task, seed, noise

    def reset(self, env: gymnasium.Env) -> None:
        """Start the noise of this expert's seed from its beginning."""
        from metaworld.policies import ENV_POLICY_MAP

        self._policy = ENV_POLICY_MAP[self._task]()
        self._noise = BurstNoise(self._seed, size=3)

    def act(self, observation: dict[str, Any], info: dict[str, Any]) -> np.ndarray:
        """Return the noisy action, float32 (4,)."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the environment will clip what the policy returns
            # A copy: those for doors write into what they are given.
            action = np.clip(self._policy.get_action(info["full_state"].copy()), -1.0, 1.0)
        action[:3] += self._strength * self._noise.draw()
        return np.clip(action, -1.0, 1.0).astype(np.float32)
