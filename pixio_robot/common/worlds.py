"""Whether a policy meets the world that it was trained in: rate, control, task, robot, looks and versions."""

import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from pixio_robot.common.errors import UserError
from pixio_robot.common.versions import PHYSICS_PACKAGES, TASK_PACKAGES

logger = logging.getLogger(__name__)

RUN_FILE = "pixio_run.json"
"""Beside the weights of our trainings, and of no others: environment, versions, demonstrations."""

# Fields of environments under which an action means something else: a rollout would measure nothing.
_DECIDE_ACTIONS = ("type", "fps", "control_mode", "controller", "control_freq", "action_type", "action_space")
# What is meant to vary: how long an episode may take, and what an evaluation changes on purpose.
_FREE = ("episode_length", "perturbation", "disable_env_checker", "max_parallel_tasks", "obs_type")


def check_world(trained: Mapping[str, Any], env: Mapping[str, Any], versions: Mapping[str, str], what: str) -> None:
    """Refuse a world in which actions mean something else than in training, and warn once of other differences.

    Args:
        trained: `env` (an environment's description) and `versions` of the training, as far as they are known; `fps`, in
            Hz, counts where there was no simulation.
        env: Description of the environment now: its type and fields.
        versions: Of packages now.
        what: How to begin a sentence: `The policy was trained`.

    Raises:
        UserError: The rate or how the robot is controlled differs.
    """
    then, now = dict(trained.get("env") or {}), env
    if not then and trained.get("fps"):
        then = {"fps": trained["fps"]}
    _refuse(_differences(then, now, _DECIDE_ACTIONS), what)
    others = [name for name in then if name in now and name not in (*_DECIDE_ACTIONS, *_FREE)]
    # Their versions change physics and looks; those of tasks that the environment is not made of do not.
    tasks = [package for package in TASK_PACKAGES if package.removeprefix("gym-") in str(env.get("type"))]
    packages = [*PHYSICS_PACKAGES, *tasks]
    differing = _differences(then, now, others) | _differences(trained.get("versions") or {}, versions, packages)
    if differing:
        said = "; ".join(
            f"{name.replace('_', ' ')} {before} then, {after} now" for name, (before, after) in differing.items()
        )
        _warn_once(f"{what} in another simulation ({said}): the success rate may shift for that reason.")


def _differences(then: Mapping[str, Any], now: Mapping[str, Any], names: Sequence[str]) -> dict[str, tuple[Any, Any]]:
    pairs = {name: (then.get(name), now.get(name)) for name in names}
    return {
        name: (before, after)
        for name, (before, after) in pairs.items()
        if before is not None and after is not None and _plain(before) != _plain(after)
    }


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _refuse(differing: Mapping[str, tuple[Any, Any]], what: str) -> None:
    if not differing:
        return
    name, (before, after) = next(iter(differing.items()))
    if name == "fps":
        raise UserError(
            f"{what} at {before} Hz, and the environment runs at {after} Hz: each action would act for another "
            f"time than it was learnt for. Set env.fps={before}."
        )
    raise UserError(
        f"{what} with env.{name}={before}, and the environment has {after}: actions would mean something else. "
        f"Set env.{name}={before}, or train on demonstrations of this environment."
    )


@functools.cache
def _warn_once(message: str) -> None:
    """Warn, unless this process did: one policy is evaluated under many conditions, and at many steps of its training."""
    logger.warning(message)
