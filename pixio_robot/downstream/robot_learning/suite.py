"""What a suite of tasks is: where an episode takes place, who demonstrates it, how a policy is trained and scored."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore
from pixio_robot.demos.collection.collection import store_path_for
from pixio_robot.downstream.config import Data
from pixio_robot.downstream.robot_learning.config import RobotLearningProtocol
from pixio_robot.downstream.robot_learning.expert_files import PUBLIC_FILE, ExpertFile
from pixio_robot.environments import env_config_from
from pixio_robot.training.config import DemosConfig
from pixio_robot.training.data.opening import open_demonstrations


@dataclass(frozen=True)
class Recipe:
    """How a policy is trained.

    Attributes:
        epochs: Passes over the demonstrations.
        batch_size: Windows per step.
        learning_rate: Adam's, constant.
        hidden_width: Width of the hidden layers.
        hidden_layers: Number of them.
        history: Frames that the policy sees.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    hidden_width: int
    hidden_layers: int = 3
    history: int = 3


@dataclass(frozen=True)
class Suite(ABC):
    """Tasks that are demonstrated, imitated and scored in one way.

    Attributes:
        protocol: Of robot learning.
        data: What the user has.
    """

    protocol: RobotLearningProtocol
    data: Data

    name: ClassVar[str]
    title: ClassVar[str]
    score: ClassVar[str] = "success"
    """What counts: `success`, `return` (of at most 1000) or `held out` (actions of episodes that nothing was trained on)."""

    @property
    @abstractmethod
    def settings(self) -> Any:  # noqa: ANN401 (each has its own)
        """The part of the protocol that is about this suite."""

    @property
    def tasks(self) -> Sequence[str]:
        """Names of the tasks."""
        return self.settings.tasks

    def recipe(self, task: str) -> Recipe:
        """Return how a policy of a task is trained."""
        protocol = self.protocol
        return Recipe(protocol.epochs, protocol.batch_size, protocol.learning_rate, protocol.hidden_width)

    @abstractmethod
    def env(self, task: str) -> dict[str, Any]:
        """Describe the environment of a task; its frames have the size that the protocol wants."""

    def check(self) -> None:
        """Look that what a task needs is there, before anything slow.

        Raises:
            UserError: It is not.
        """
        for task in self.tasks:
            config: Any = env_config_from(self.env(task))
            try:
                config.make_expert(0)
            except ValueError as error:
                raise UserError(str(error)) from error

    def opened(self, task: str, folder: Path, console: Console) -> tuple[DemoStore, dict[str, Any]]:
        """Return the demonstrations of a task, collected or read now or earlier, and the environment that they are of."""
        description = self.env(task)
        config = env_config_from(description)
        return open_demonstrations(
            self._collected(store_path_for(config, folder)), config, folder, console
        ), description

    def demos(self, store: DemoStore) -> DemosConfig:
        """Say to a run of the main job where its demonstrations are."""
        if store.attributes.get("expert") == PUBLIC_FILE:
            return DemosConfig(source="store", path=str(store.path))
        return self._collected(Path(str(store.path)))

    def _collected(self, path: Path) -> DemosConfig:
        """Describe the first demonstrations of a store, which may have more of them from another protocol."""
        settings, workers = self.settings, self.protocol.workers
        return DemosConfig(source="scripted", path=str(path), episodes=settings.demonstrations, workers=workers)

    def sources(self) -> dict[str, str]:
        """Return what stands for the data that the user brings."""
        return {}


class FromFiles(Suite):
    """A suite whose demonstrations are one of the public expert files."""

    @abstractmethod
    def file(self, task: str) -> ExpertFile:
        """Return the expert file of a task."""

    def check(self) -> None:
        """Look that the files are there, and what runs their tasks.

        Raises:
            UserError: They are not.
        """
        for task in self.tasks:
            env_config_from(self.env(task))
            self.file(task).check()

    def opened(self, task: str, folder: Path, console: Console) -> tuple[DemoStore, dict[str, Any]]:
        """Return the demonstrations of a task's file, and the environment with frames of their size."""
        description = self.env(task)
        fps, words = env_config_from(description).fps, f"{self.name} {task}"
        store = self.file(task).converted(folder, self.settings.demonstrations, lambda steps: fps, words, console)
        return store, description | {"image_size": store.features[store.image_keys[0]].shape[0]}

    def sources(self) -> dict[str, str]:
        """Return what stands for the files."""
        return {task: self.file(task).identity() for task in self.tasks}


class FromDemonstrations(Suite):
    """A suite without a simulator, scored by the actions of demonstrations that nothing is trained on."""

    score = "held out"

    @abstractmethod
    def held_out(self, task: str, folder: Path, console: Console) -> DemoStore:
        """Return the demonstrations of a task that nothing is trained on."""
