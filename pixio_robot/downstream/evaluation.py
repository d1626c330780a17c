"""Which tasks the words on the command line stand for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

from pixio_robot.downstream.config import Data, Protocol, TaskName
from pixio_robot.downstream.dense.task import dense_tasks
from pixio_robot.downstream.neighbours.task import neighbours_task
from pixio_robot.downstream.probes.task import ProbesTask
from pixio_robot.downstream.robot_learning.task import robot_learning_tasks
from pixio_robot.downstream.robustness.task import robustness_tasks
from pixio_robot.downstream.scenes import Simulator
from pixio_robot.downstream.task import DownstreamTask
from pixio_robot.downstream.two_view.task import two_view_tasks


@dataclass(frozen=True)
class World:
    """What tasks are made of.

    Attributes:
        data: Public datasets, where they are at hand.
        protocol: How each task is run.
        simulator: Renders scenes where they are not.
        folder: Where scenes, demonstrations and runs are kept.
        choices: What the names of the protocol's policy (`policy`) and environments stand for.
    """

    data: Data
    protocol: Protocol
    simulator: Simulator
    folder: Path
    choices: Mapping[str, Mapping[str, Any]]


def tasks_of(names: Sequence[TaskName], world: World) -> list[DownstreamTask]:
    """Return the tasks, in the order of their names.

    Raises:
        UserError: Data or protocol is not what a task needs.
    """
    return [task for name in dict.fromkeys(names) for task in _tasks(name, world)]


def _tasks(name: TaskName, world: World) -> Sequence[DownstreamTask]:
    data, protocol, folder = world.data, world.protocol, world.folder
    match name:
        case "depth" | "segmentation":
            return dense_tasks(name, protocol.dense, data, world.simulator, folder)
        case "two_view":
            return two_view_tasks(protocol.two_view, data, world.simulator, folder / "scenes")
        case "probes":
            return [ProbesTask(protocol.probes, world.simulator, folder / "scenes")]
        case "neighbours":
            return [neighbours_task(protocol.neighbours, data.images, world.simulator, folder / "scenes")]
        case "robot_learning":
            return robot_learning_tasks(protocol.robot_learning, data, folder / "robot_learning")
        case "robustness":
            choices = world.choices
            envs = {env: choices[env] for env in protocol.robustness.envs}
            return robustness_tasks(protocol.robustness, choices["policy"], envs, folder)
        case never:
            assert_never(never)
