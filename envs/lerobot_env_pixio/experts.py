"""Scripted demonstrators that read the simulator's state through ``info``."""

from typing import Any, Protocol

import gymnasium
import numpy as np


class Expert(Protocol):
    """What makes demonstrations of a task."""

    def reset(self, env: gymnasium.Env) -> None:
        """Prepare for an episode of an environment that has just been reset."""
        ...

    def act(self, observation: dict[str, Any], info: dict[str, Any]) -> np.ndarray:
        """Return the action to execute and record, float32 (A,)."""
        ...


class LiftExpert:
    def __init__(self, seed: int) -> None:
        self._seed = seed

    def reset(self, env: gymnasium.Env) -> None:
        self._rng = np.random.default_rng(self._seed)

    def act(self, observation: dict[str, Any], info: dict[str, Any]) -> np.ndarray:
        eef = observation["agent_pos"][:3].astype(np.float64)
        width = observation["agent_pos"][7] - observation["agent_pos"][8]
        cube = info["object_pose"][:3]
        d = cube - eef
        dist = np.linalg.norm(d[:2])
        near = dist < 0.012 and -d[2] < 0.008
        target = cube.copy()
        target[2] += np.clip((dist - 0.008) * 3, 0, 0.08)
        move = (target - eef) / 0.05 * 2.0
        grip = -1.0
        if near:
            grip = 1.0
            move[2] = 0
            if width < 0.046:
                move[2] = 1.0
        return np.clip(np.concatenate([move, np.zeros(3), [grip]]), -1, 1).astype(np.float32)
