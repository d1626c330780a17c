"""Corrections: a policy drives, and a scripted expert takes over where it errs, so that the store shows the way back.

This is DAgger with a human gate's place taken by chance or by a stall (Ross, Gordon & Bagnell 2011, arXiv 1011.0686; Kelly et
al. 2019, arXiv 1810.02890): who acted is recorded with every step, and only the expert's steps are imitated.
"""

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import gymnasium
import numpy as np
import torch
from lerobot.envs import EnvConfig, make_env_pre_post_processors
from lerobot.envs.utils import preprocess_observation
from lerobot.policies import get_policy_class, make_pre_post_processors
from lerobot.utils.constants import ACTION
from lerobot.utils.random_utils import set_seed
from rich.console import Console

from pixio_robot.common.versions import software_versions
from pixio_robot.common.worlds import check_world
from pixio_robot.demos.collection.recording import Expert
from pixio_robot.environments import describe_env, env_config_meant
from pixio_robot.evaluation.checkpoints import check_fit, find_checkpoint, open_checkpoint, run_information

type Takeover = Literal["chance", "stuck"]

# Seconds for which the policy drives, and the expert, before the other takes over by chance.
_POLICY_SECONDS, _EXPERT_SECONDS = (0.5, 3.0), (0.5, 2.0)
# A policy is stuck when for so long no number of the robot's state has changed by so much (metres, radians).
_STUCK_SECONDS, _STUCK_CHANGE = 1.5, 0.01
# Within this share of an episode the policy may drive; the rest is the expert's, so that it can still succeed.
_POLICY_SHARE = 0.5


class Driver(Protocol):
    """What turns one environment's observations into actions."""

    def reset(self) -> None:
        """Forget what was planned."""
        ...

    def act(self, observation: dict[str, Any], task: str) -> np.ndarray:
        """Return the next action, float32 (A,)."""
        ...


class CorrectedPolicy:
    """A demonstrator: a policy that an expert corrects.

    By `chance` they take turns of random length, and the expert also takes over from a policy that is stuck. With `stuck`
    the policy drives until it is, or until half of the episode is over, and the expert ends it.

    Attributes:
        errs: Whether the last action was the policy's, or a mistake of the expert's on purpose.
    """

    def __init__(self, driver: Driver, expert: Expert, seed: int, takeover: Takeover, fps: float, length: int) -> None:
        self.errs = True
        self._driver, self._expert, self._seed = driver, expert, seed
        self._by_chance, self._fps, self._length = takeover == "chance", fps, length

    def reset(self, env: gymnasium.Env) -> None:
        """Begin an episode, with the policy at the wheel."""
        set_seed(self._seed)
        self._rng = np.random.default_rng((self._seed, 2))  # another stream than the expert's
        self._expert.reset(env)
        self._states: deque[np.ndarray] = deque(maxlen=round(_STUCK_SECONDS * self._fps))
        self._step, self._policy_drives = 0, False
        self._hand_over(env.unwrapped.task_description)  # pyright: ignore[reportAttributeAccessIssue] (LeRobot's contract)

    def act(self, observation: dict[str, Any], info: dict[str, Any]) -> np.ndarray:
        """Return the action of whoever drives, float32 (A,)."""
        self._states.append(np.asarray(observation["agent_pos"], np.float64))
        is_late = self._step >= _POLICY_SHARE * self._length
        if self._policy_drives and (is_late or self._is_stuck() or self._turn_ends_at <= self._step):
            self._take_over()
        elif not self._policy_drives and not is_late and self._turn_ends_at <= self._step:
            self._hand_over(self._task)
        self._step += 1
        if self._policy_drives:
            self.errs = True
            return self._driver.act(observation, self._task)
        action = self._expert.act(observation, info)
        self.errs = bool(getattr(self._expert, "errs", False))
        return action

    def _is_stuck(self) -> bool:
        is_known = len(self._states) == self._states.maxlen
        return is_known and float(np.ptp(np.stack(self._states), axis=0).max()) < _STUCK_CHANGE

    def _hand_over(self, task: str) -> None:
        self._task, self._policy_drives = task, True
        self._driver.reset()
        self._turn_ends_at = self._step + self._turn(_POLICY_SECONDS) if self._by_chance else np.inf

    def _take_over(self) -> None:
        self._policy_drives = False
        self._turn_ends_at = self._step + self._turn(_EXPERT_SECONDS) if self._by_chance else np.inf
        self._states.clear()

    def _turn(self, seconds: tuple[float, float]) -> int:
        return max(1, round(self._rng.uniform(*seconds) * self._fps))


class PolicyDriver:
    """A checkpoint that turns one environment's observations into actions, as LeRobot's rollout does."""

    def __init__(self, checkpoint: Path, env_config: EnvConfig) -> None:
        """Load it.

        Raises:
            UserError: It is no checkpoint, or does not fit the environment.
        """
        config = open_checkpoint(checkpoint)
        check_fit(config, env_config)
        self._policy = get_policy_class(config.type).from_pretrained(checkpoint, config=config)
        self._before, self._after = make_pre_post_processors(policy_cfg=config, pretrained_path=str(checkpoint))
        self._env_before, self._env_after = make_env_pre_post_processors(env_config, config)

    def reset(self) -> None:
        """Forget what was planned."""
        self._policy.reset()

    def act(self, observation: dict[str, Any], task: str) -> np.ndarray:
        """Return the next action, float32 (A,)."""
        batch = preprocess_observation({key: _batched(value) for key, value in observation.items()})
        with torch.inference_mode():
            action = self._policy.select_action(self._before(self._env_before(batch | {"task": [task]})))
        return self._env_after({ACTION: self._after(action)})[ACTION][0].cpu().numpy().astype(np.float32)


class CorrectedPolicies:
    """In a worker: a policy, loaded once, under an environment's experts."""

    def __init__(self, checkpoint: Path, takeover: Takeover, env_config: Any) -> None:  # noqa: ANN401 (see `ExpertEnvConfig`)
        self._driver, self._env_config = PolicyDriver(checkpoint, env_config), env_config
        self._takeover: Takeover = takeover

    def __call__(self, seed: int) -> CorrectedPolicy:
        """Return the demonstrator of an episode."""
        config = self._env_config
        expert = config.make_expert(seed)
        return CorrectedPolicy(self._driver, expert, seed, self._takeover, config.fps, config.episode_length)


def find_policy(given: Path, output_root: Path, env: Mapping[str, Any]) -> tuple[Path, EnvConfig]:
    """Return the checkpoint of a policy that is to drive, and the environment in which it does.

    Args:
        given: See `find_checkpoint`.
        output_root: Where runs of train_policy are.
        env: What is said of the environment; what is not is as in the policy's training, see `env_config_meant`.

    Raises:
        UserError: There is no such checkpoint, it does not fit the environment, or it learnt another rate or control; or
            neither says which environment it is.
    """
    checkpoint = find_checkpoint(given, output_root, Console(stderr=True))
    config, trained = open_checkpoint(checkpoint), run_information(checkpoint)
    env_config = env_config_meant(env, trained.get("env"), str(checkpoint))
    check_fit(config, env_config)
    check_world(trained, describe_env(env_config), software_versions(), "The policy was trained")
    return checkpoint, env_config


def _batched(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return {name: _batched(inner) for name, inner in value.items()}
    return np.asarray(value)[None]
