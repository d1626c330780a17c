"""A policy that stands still, under the toy environment's expert; worker processes import this module."""

from collections.abc import Callable

import numpy as np
from toy_expert_env import ToyExpertEnvConfig

from pixio_robot.training.corrections import CorrectedPolicy, Takeover


class StandsStill:
    """Drives as `PolicyDriver` does."""

    def reset(self) -> None:
        pass

    def act(self, observation: dict, task: str) -> np.ndarray:
        assert task == "bring the point to the goal"
        return np.zeros(2, np.float32)


def corrected(takeover: Takeover, config: ToyExpertEnvConfig) -> Callable[[int], CorrectedPolicy]:
    def make(seed: int) -> CorrectedPolicy:
        expert = config.make_expert(seed)
        return CorrectedPolicy(StandsStill(), expert, seed, takeover, config.fps, config.episode_length)

    return make
