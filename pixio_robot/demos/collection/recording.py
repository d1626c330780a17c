"""One demonstration: a scripted expert acts in an environment, and every step is kept."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium
import numpy as np

from pixio_robot.demos.store.layout import INTERVENTION


class Expert(Protocol):
    """A scripted demonstrator."""

    def reset(self, env: gymnasium.Env) -> None:
        """Prepare for the episode that the environment was just reset to."""
        ...

    def act(self, observation: dict[str, Any], info: dict[str, Any]) -> np.ndarray:
        """Return the action to execute and record, float32 (actions,)."""
        ...


class ExpertEnvConfig(Protocol):
    """A LeRobot `EnvConfig` that makes single environments and a scripted expert for them."""

    def make_env(self) -> gymnasium.Env:
        """Return one environment."""
        ...

    def make_expert(self, seed: int) -> Expert:
        """Return an expert whose noise follows from the seed."""
        ...


@dataclass(frozen=True)
class Demonstration:
    """A recorded episode.

    Attributes:
        data: Each of LeRobot's feature names, (steps, ...).
        seed: What the environment and the expert were reset with.
        success: What the environment said of the last step.
        task: The task in words.
        names: What the numbers of state and action are, as far as the environment says it.
    """

    data: dict[str, np.ndarray]
    seed: int
    success: bool
    task: str
    names: dict[str, list[str]] = field(default_factory=dict)


def record_demonstration(env: gymnasium.Env, expert: Expert, seed: int) -> Demonstration:
    """Run one episode.

    Step t holds the observation before the action and the action; the observation after the last action is
    not kept.
    """
    observation, info = env.reset(seed=seed)
    expert.reset(env)
    steps = []
    ended = False
    while not ended:
        action = np.asarray(expert.act(observation, info), np.float32)
        step = named_observation(observation) | {"action": action}
        if getattr(expert, "errs", None) is not None:
            step[INTERVENTION] = np.array([not expert.errs], np.float32)  # pyright: ignore[reportAttributeAccessIssue]
        steps.append(step)
        observation, _, terminated, truncated, info = env.step(action)
        ended = terminated or truncated
    return Demonstration(
        data={key: np.stack([step[key] for step in steps]) for key in steps[0]},
        seed=seed,
        success=bool(info["is_success"]),
        task=env.unwrapped.task_description,  # pyright: ignore[reportAttributeAccessIssue] (LeRobot's contract)
        names=names_of(env),
    )


def names_of(env: gymnasium.Env) -> dict[str, list[str]]:
    """Return what the numbers of state and action are, where the environment says it."""
    found = {"observation.state": "state_names", "action": "action_names"}
    names = {key: getattr(env.unwrapped, attribute, None) for key, attribute in found.items()}
    return {key: list(of_key) for key, of_key in names.items() if of_key is not None}


def named_observation(observation: dict[str, Any]) -> dict[str, np.ndarray]:
    """Name an observation's parts as ``lerobot.envs.utils.preprocess_observation`` does."""
    frames = {f"observation.images.{camera}": frame for camera, frame in observation["pixels"].items()}
    return frames | {"observation.state": np.asarray(observation["agent_pos"], np.float32)}
