"""Several tasks of one simulator as one environment."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from lerobot_env_pixio.simulators.camera_env import CameraEnv, Observation

_OF_EVERY_TASK = ("render_observations", "perturbation")
"""Attributes of a `CameraEnv` that are set for all tasks at once."""


class TaskMixture(gymnasium.Env):
    """Several tasks that take and give the same, of which each episode's seed decides one: the task at seed modulo number.

    Seeds that follow each other give all tasks in turn. `task_description` says the present episode's; whatever else a
    `CameraEnv` has is that of the present episode's, too. A task's simulation is built when its turn comes first, and stays.

    Args:
        kind: The tasks' environment.
        tasks: Their names.
        settings: Its other arguments.

    Raises:
        ValueError: A name or a value is refused; or a task comes twice, or has another state or action than the first.
    """

    def __init__(self, kind: type[CameraEnv], tasks: Sequence[str], **settings: Any) -> None:  # noqa: ANN401 (passed on)
        self._envs = [kind(task=task, **settings) for task in tasks]  # type: ignore[call-arg]
        self._current = self._envs[0]
        if len(set(tasks)) < len(tasks):
            raise ValueError(f"a task of env.task={','.join(tasks)} comes twice: name each once")
        for env in self._envs:
            for numbers in ("state_names", "action_names"):
                if getattr(env, numbers) != getattr(self._current, numbers):
                    raise ValueError(
                        f"{env.task} and {self._current.task} have other {numbers}: one policy cannot do both"
                    )
        self.observation_space, self.action_space = self._current.observation_space, self._current.action_space
        self.metadata, self.render_mode = self._current.metadata, self._current.render_mode
        self.task_descriptions = tuple(env.task_description for env in self._envs)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        if name.startswith("__") or name in ("_envs", "_current"):
            raise AttributeError(name)
        return getattr(self._current, name)

    def __setattr__(self, name: str, value: Any) -> None:  # noqa: ANN401
        if name in _OF_EVERY_TASK:
            for env in self._envs:
                setattr(env, name, value)
        else:
            super().__setattr__(name, value)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode of the task that is the seed's; without a seed, of one drawn by the seed given last."""
        super().reset(seed=seed)
        number = int(self.np_random.integers(2**32)) if seed is None else seed
        self._current = self._envs[number % len(self._envs)]
        return self._current.reset(seed=number, options=options)

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Execute one action in the present episode's task."""
        return self._current.step(action)

    def render(self) -> np.ndarray:
        """Return the last observation's frames side by side."""
        return self._current.render()

    def close(self) -> None:
        """Free all tasks' GL contexts."""
        for env in self._envs:
            env.close()
