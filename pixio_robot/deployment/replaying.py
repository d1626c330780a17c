"""A recorded episode drives a robot, as a policy does that has learnt it by heart: what `scripts/replay_demo.py` does.

Letters of shape suffixes: T steps.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.envs import EnvConfig
from rich.console import Console

from pixio_robot.common.versions import software_versions
from pixio_robot.common.worlds import check_world
from pixio_robot.demos.recorded import ACTION, STATE, RecordedEpisode
from pixio_robot.deployment.config import Caution
from pixio_robot.deployment.driving import drive_robot, drive_simulation
from pixio_robot.deployment.runtime import Clock
from pixio_robot.deployment.runtime.holding import Kind, action_kinds
from pixio_robot.environments import describe_env, env_config_meant
from pixio_robot.evaluation.record import EvaluationRecord

logger = logging.getLogger(__name__)

_DRY_RUN_SECONDS = 2.0


class RecordedPolicy:
    """A `ChunkPolicy` that gives an episode's actions one by one, whatever it sees, and notes how far the state is from then."""

    def __init__(self, episode: RecordedEpisode, wait: int = 0) -> None:
        """Learn an episode.

        Args:
            episode: The episode.
            wait: Control periods for which the first action is given, so that the robot comes to where the episode began.
        """
        self._episode, self._wait = episode, wait
        self._apart: list[np.ndarray] = []
        state = episode.states_T
        described = {"size": episode.actions_T.shape[1], "names": episode.names.get(ACTION), "space": None}
        self.metadata: Mapping[str, Any] = {
            "cameras": [],
            "state": None
            if state is None
            else {"key": STATE, "size": state.shape[1], "names": episode.names.get(STATE)},
            "action": described | {"limits_from": "demonstrations"} | episode.moves,
            "noise": None,
            "tasks": None,
            "observation_horizon": 1,
            "action_horizon": 1,
            "executed_actions": 1,
            "control_rate_hz": episode.fps,
        }

    @property
    def steps(self) -> int:
        """Control periods until the last action was given."""
        return self._wait + len(self._episode.actions_T)

    def predict(self, stacked: Mapping[str, np.ndarray], chunk: int, seed: int = 0) -> np.ndarray:
        """Return the next action, (1, A); the last one is repeated."""
        step = min(max(0, chunk - self._wait), len(self._episode.actions_T) - 1)
        if chunk >= self._wait and self._episode.states_T is not None:
            self._apart.append(stacked[STATE][0] - self._episode.states_T[step])
        return self._episode.actions_T[step : step + 1]

    def comparison(self) -> str:
        """Say how far the state was from the recorded one."""
        if not self._apart:
            return "no state to compare with the recording's"
        apart_T = np.abs(np.stack(self._apart))
        step, number = np.unravel_index(apart_T.argmax(), apart_T.shape)
        names = self._episode.names.get(STATE) or [f"{STATE}[{place}]" for place in range(apart_T.shape[1])]
        return f"the state is at most {apart_T.max():.4g} from the recorded one ({names[number]}, step {step})"


def simulation_of(episode: RecordedEpisode, given: Mapping[str, Any]) -> EnvConfig:
    """Return the simulation in which an episode is replayed.

    Args:
        episode: The episode.
        given: The one that was asked for, or fields in which it differs from the one that the recording names.

    Raises:
        UserError: There is none, or the one asked for has another rate, robot or control.
    """
    recorded = episode.attributes
    env_config = env_config_meant(given, recorded.get("env"), str(episode.source))
    check_world(
        {"fps": episode.fps} | recorded, describe_env(env_config), software_versions(), "The episode was recorded"
    )
    return env_config


def replay_in_simulation(
    episode: RecordedEpisode,
    env_config: EnvConfig,
    *,
    realtime: bool,
    dry_run: bool,
    videos: Path | None,
    console: Console,
) -> EvaluationRecord | None:
    """Replay an episode in a simulation, from its own seed.

    Args:
        episode: The episode.
        env_config: As `simulation_of` gives it.
        realtime: Whether to keep the control rate.
        dry_run: Show the first command, and simulate nothing.
        videos: Folder for the video; None makes none.
        console: Where it is said how the replay ends, beside how the recording did.

    Returns:
        The episode, as evaluation records them; None after a dry run.

    Raises:
        UserError: The simulation cannot start, or takes other actions.
    """
    if episode.seed is None:
        logger.warning("the recording does not know its seed: the scene is that of seed 0, not the episode's")
    policy = RecordedPolicy(episode)
    record = drive_simulation(
        policy,
        env_config,
        [episode.seed or 0],
        mode="synchronous",
        realtime=realtime,
        name=episode.source,
        rate=None,
        dry_run=dry_run,
        console=console,
        steps=policy.steps,
        videos=videos,
    )
    if record is not None:
        outcomes = {True: "success", False: "failure", None: "not known"}
        then, now = outcomes[episode.success], outcomes[record.episodes[0].success]
        alike = "as recorded" if then == now else f"recorded: {then}"
        steps = f"{record.episodes[0].steps} of {policy.steps} recorded steps"
        console.print(f"replay: {now} ({alike}), {steps}; {policy.comparison()}", highlight=False, soft_wrap=True)
    return record


def replay_on_robot(
    episode: RecordedEpisode,
    description: Mapping[str, Any],
    *,
    approach: float,
    dry_run: bool,
    console: Console,
    caution: Caution | None = None,
    clock: Clock | None = None,
) -> bool:
    """Replay an episode on a robot of LeRobot's, under the guard and the limits that a policy has.

    Args:
        episode: The episode.
        description: `type` and fields of the robot's config.
        approach: Seconds in which the robot comes to the first action, where actions are places.
        dry_run: Read the robot and print what would be sent, but send nothing.
        console: Where that is shown.
        caution: How far the recording is trusted; None takes the defaults.
        clock: What keeps the rate; None is real time.

    Returns:
        Whether the robot may be driven so, after a dry run; else True.

    Raises:
        UserError: See `drive_robot`.
    """
    kinds = action_kinds(caution and caution.action_space, episode.names.get(ACTION), episode.actions_T.shape[1])
    are_places = kinds is not None and set(kinds) == {Kind.PLACE}  # a motion, given again and again, would add up
    policy = RecordedPolicy(episode, wait=round(approach * episode.fps) if are_places else 0)
    seconds = _DRY_RUN_SECONDS if dry_run else policy.steps / episode.fps
    may_be_driven = drive_robot(
        policy,
        description,
        cameras={},
        mode="synchronous",
        seconds=seconds,
        rate=None,
        dry_run=dry_run,
        console=console,
        caution=caution,
        clock=clock,
    )
    if not dry_run:
        console.print(f"replay: {policy.comparison()}", highlight=False, soft_wrap=True)
    return may_be_driven
