"""How often a scripted expert solves its task, with the noise that it records."""

import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from lerobot.envs import EnvConfig

from pixio_robot.common.errors import UserError
from pixio_robot.common.workers import WorkerPool
from pixio_robot.demos.collection.recording import Expert, ExpertEnvConfig, record_demonstration
from pixio_robot.environments import describe_env, env_config_from

# No expert looks at a frame, and an environment that knows `render_observations` draws only the first of an episode.
_IMAGE_SIZE = 16


@dataclass(frozen=True)
class Trial:
    """An episode of an expert.

    Attributes:
        seed: Of the environment and of the expert's noise.
        success: What the environment said of the last step.
        steps: Length of the episode.
    """

    seed: int
    success: bool
    steps: int


def try_expert(
    env_config: EnvConfig,
    seeds: Sequence[int],
    *,
    delay: int = 0,
    workers: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> list[Trial]:
    """Let an environment's expert try seeds, almost without rendering; return the trials in the order of the seeds.

    Args:
        env_config: Environment and expert, see `recording.ExpertEnvConfig`.
        seeds: One for each episode.
        delay: How many steps old what the expert sees is.
        workers: Number of processes: all available cores by default.
        advance: Called after each trial.

    Raises:
        UserError: The environment has no expert, or crashed.
    """
    make_expert = getattr(env_config, "make_expert", None)
    if make_expert is None:
        raise UserError(f"The environment {env_config.type!r} has no scripted expert: choose one that has.")
    unseen = env_config_from({**describe_env(env_config), "image_size": _IMAGE_SIZE})
    try:
        make_expert(0)
    except ValueError as error:  # a plugin's sentence
        raise UserError(str(error)) from error
    n_workers = min(workers or len(os.sched_getaffinity(0)), len(seeds))
    waiting, trials = list(seeds)[::-1], []
    with WorkerPool(_Trier, (unseen, delay), n_workers, preload=[__name__]) as pool:
        while len(trials) < len(seeds):
            while waiting and pool.has_idle_worker:
                pool.submit(waiting.pop())
            for outcome in pool.wait():
                if outcome.result is None:
                    raise UserError(
                        f"Seed {outcome.task} failed in the environment or its expert ({outcome.crash})."
                    ) from RuntimeError(outcome.details)
                trials.append(outcome.result)
                advance()
    return sorted(trials, key=lambda trial: list(seeds).index(trial.seed))


class _Trier:
    """In a worker: an environment, made once, that turns seeds into trials."""

    def __init__(self, env_config: ExpertEnvConfig, delay: int) -> None:
        self._env_config, self._env, self._delay = env_config, env_config.make_env(), delay
        self._env.unwrapped.render_observations = False  # pyright: ignore[reportAttributeAccessIssue]

    def __call__(self, seed: int) -> Trial:
        expert = _Late(self._env_config.make_expert(seed), self._delay)
        demonstration = record_demonstration(self._env, expert, seed)
        return Trial(seed, demonstration.success, len(demonstration.data["action"]))


class _Late:
    """An expert that sees what was there some steps ago."""

    def __init__(self, expert: Expert, delay: int) -> None:
        self._expert, self._delay = expert, delay

    def reset(self, env: gymnasium.Env) -> None:
        self._expert.reset(env)
        self._seen: deque[tuple[dict[str, Any], dict[str, Any]]] = deque(maxlen=self._delay + 1)

    def act(self, observation: dict[str, Any], info: dict[str, Any]) -> np.ndarray:
        self._seen.append((observation, info))
        return self._expert.act(*self._seen[0])
