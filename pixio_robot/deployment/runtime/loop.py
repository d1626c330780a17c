"""The control loop between a robot and a controller."""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from pixio_robot.common.errors import UserError
from pixio_robot.deployment.artifact.metadata import check_size
from pixio_robot.deployment.runtime.clock import Clock
from pixio_robot.deployment.runtime.controller import Command, Controller
from pixio_robot.deployment.runtime.observation import CameraSource, Observation


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
    max_steps: int,
    on_step: Callable[[Observation, Command], bool] | None = None,
) -> int:
    """Drive a robot until its episode is over.

    The loop looks, decides and sends once for each control period. A period that takes too long delays the
    next ones, which never hurry to catch up.

    Args:
        robot: Checked by `check_robot`.
        controller: Begins an episode.
        clock: What keeps the rate.
        max_steps: Control periods after which the loop ends.
        on_step: Sees every command before it is sent, and says whether to send it.

    Returns:
        The number of control periods.

    Raises:
        UserError: The first observation does not fit the artifact; nothing was sent.
    """
    controller.reset()
    due = clock.now()
    for step in range(max_steps):
        if robot.is_over:
            return step
        observation = robot.observe()
        command = controller.act(observation)
        sends = on_step is None or on_step(observation, command)
        if sends and command.action is not None:
            robot.send(command.action)
        due += 1 / controller.rate
        if clock.now() > due:
            controller.report.overruns += 1
            due = clock.now()
        clock.sleep_until(due)
    return max_steps
