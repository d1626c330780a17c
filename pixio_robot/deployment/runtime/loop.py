"""The control loop between a robot and a controller."""

import logging
import math
import sys
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from pixio_robot.common.errors import UserError
from pixio_robot.deployment.artifact.metadata import check_size
from pixio_robot.deployment.runtime.clock import Clock
from pixio_robot.deployment.runtime.controller import Command, Controller
from pixio_robot.deployment.runtime.holding import HoldReason
from pixio_robot.deployment.runtime.observation import CameraSource, NotReadError, Observation

logger = logging.getLogger(__name__)

# Of a period: so late is no overrun yet.
_LATE = 0.1
_ROUNDING = 1e-6


class Robot(Protocol):
    """A robot, real or simulated, as the runtime sees it."""

    @property
    def cameras(self) -> Mapping[str, CameraSource]:
        """What each camera delivers, by the artifact's keys."""
        ...

    @property
    def state_size(self) -> int | None:
        """Length of the state; None where there is none."""
        ...

    @property
    def action_size(self) -> int:
        """Length A of an action."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether the episode has ended."""
        ...

    def observe(self) -> Observation:
        """Return what the robot perceives now."""
        ...

    def send(self, action: np.ndarray) -> None:
        """Execute an action (A,) in raw units for one control period."""
        ...


def check_robot(controller: Controller, robot: Robot) -> None:
    """Check before the first motion that an artifact and a robot are made for each other.

    Raises:
        UserError: A camera is missing, or gives another colour order or aspect ratio; state or action has another length.
    """
    metadata = controller.metadata
    for camera in metadata["cameras"]:
        key = camera["key"]
        if key not in robot.cameras:
            raise UserError(
                f"The artifact reads {key}, but the robot offers {', '.join(sorted(robot.cameras)) or 'no camera'}: "
                f"connect that camera or rename one."
            )
        source = robot.cameras[key]
        if source.colour_order != camera["colour_order"]:
            raise UserError(
                f"{key} delivers {source.colour_order}, but the artifact was trained on {camera['colour_order']}: "
                f"reverse the channels before the call."
            )
        check_size(camera, source.height, source.width)
    state = metadata["state"]
    if state is not None and robot.state_size != state["size"]:
        raise UserError(
            f"{state['key']} has {robot.state_size or 'no'} numbers, but the artifact reads {state['size']}"
            f"{': ' + ', '.join(state['names']) if state['names'] else ''}; give the state it was trained on."
        )
    if robot.action_size != metadata["action"]["size"]:
        raise UserError(
            f"The robot takes actions of {robot.action_size} numbers, but the artifact gives "
            f"{metadata['action']['size']}: use the robot that it was trained for."
        )


def run_episode(
    robot: Robot,
    controller: Controller,
    clock: Clock,
    max_steps: int = sys.maxsize,
    seconds: float = math.inf,
    on_step: Callable[[Observation | None, Command], bool] | None = None,
    seed: int = 0,
    task: str | None = None,
) -> int:
    """Drive a robot until its episode is over.

    The loop looks, decides and sends once for each control period. A period that takes too long delays the
    next ones, which never hurry to catch up: after it a whole period lies between two commands, and always half a one.

    Args:
        robot: Checked by `check_robot`; a real one is a `guarded` one.
        controller: Begins an episode.
        clock: What keeps the rate.
        max_steps: Control periods after which the loop ends.
        seconds: Seconds after which it ends.
        on_step: Sees every command before it is sent, and says whether to send it; with None for a robot not read.
        seed: Of the episode; decides what a policy that samples starts from.
        task: What a policy of several tasks is to do, in the words of its metadata.

    Returns:
        The number of control periods.

    Raises:
        UserError: The task is none of the artifact's, the first observation does not fit it, or the robot stands where it may
            not start: nothing was sent. Or the robot cannot be read any more.
    """
    controller.reset(seed, task)
    period, overruns = 1 / controller.rate, _Overruns(1 / controller.rate)
    start = due = clock.now()
    earliest = -math.inf  # when the next command may be sent
    for step in range(max_steps):
        if robot.is_over or due - start > seconds - _ROUNDING * period:
            return step
        observation, command = _decide(robot, controller)
        sends = on_step is None or on_step(observation, command)
        if sends and command.held is HoldReason.REFUSED_START:
            raise UserError(f"The robot is not driven: {command.sentence}.")
        if sends and command.action is not None:
            clock.sleep_until(earliest)
            robot.send(command.action)
        now, due = clock.now(), due + period
        late = now > due + _LATE * period
        earliest = now + (period if late else period / 2)
        if late:
            controller.report.overruns += 1
            overruns.note(now, now - due + period)
            due = now
        clock.sleep_until(due)
    return max_steps


def _decide(robot: Robot, controller: Controller) -> tuple[Observation | None, Command]:
    try:
        observation = robot.observe()
    except NotReadError as error:
        return None, controller.act_unseen(error)
    return observation, controller.act(observation)


class _Overruns:
    """Reports periods that are too long while they happen, in a line a second."""

    def __init__(self, period: float) -> None:
        self._period = period
        self._said_at = -math.inf
        self._lengths: list[float] = []

    def note(self, now: float, seconds: float) -> None:
        """Take one into account."""
        self._lengths.append(seconds)
        if now - self._said_at >= 1:
            logger.warning(
                "%d control period(s) took too long, up to %.0f ms of %.0f",
                len(self._lengths),
                1000 * max(self._lengths),
                1000 * self._period,
            )
            self._said_at = now
            self._lengths.clear()
