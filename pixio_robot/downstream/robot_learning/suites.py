"""CortexBench's suites: where an episode takes place, who demonstrates it, how it is scored, and what was published."""

import importlib.util
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
from pixio_robot.downstream.robot_learning.expert_files import ExpertFile
from pixio_robot.environments import env_config_from
from pixio_robot.training.config import DemosConfig
from pixio_robot.training.data.opening import open_demonstrations

PUBLISHED = {
    "VC-1 ViT-L": {"adroit": 52.0, "dmc": 81.3, "metaworld": 88.3},
    "R3M ResNet-50": {"adroit": 74.7, "dmc": 72.4, "metaworld": 94.1},
    "Theia ViT-B": {"adroit": 60.0, "dmc": 79.9, "metaworld": 87.7},
    "DINOv2 ViT-L": {"adroit": 64.0, "dmc": 70.4, "metaworld": 90.9},
    "DINOv3 ViT-H+": {"adroit": 63.3, "dmc": 78.5, "metaworld": 89.3},
    "Pixio ViT-H": {"adroit": 70.7, "dmc": 77.5, "metaworld": 92.8},
}
"""Table 5 of arXiv 2512.15715 by suite, %: the highest evaluation of each run, means over the seeds 100, 200 and 300."""


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
    by_return: ClassVar[bool] = False
    """Whether the return counts, of at most 1000, and not success."""

    @property
    @abstractmethod
    def settings(self) -> Any:  # noqa: ANN401 (each has its own)
        """The part of the protocol that is about this suite."""

    @property
    def tasks(self) -> Sequence[str]:
        """Names of the tasks."""
        return self.settings.tasks

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
        demos = DemosConfig(
            source="scripted",
            path=str(store_path_for(config, folder)),
            episodes=self.settings.demonstrations,
            workers=self.protocol.workers,
        )
        return open_demonstrations(demos, config, folder, console), description

    def sources(self) -> dict[str, str]:
        """Return what stands for the data that the user brings."""
        return {}


class Metaworld(Suite):
    """Five tasks of Meta-World, seen by one camera from above, demonstrated by Meta-World's own experts without noise."""

    name, title = "metaworld", "Meta-World"

    @property
    def settings(self) -> Any:  # noqa: ANN401 (as above)
        """The part of the protocol that is about this suite."""
        return self.protocol.metaworld

    def env(self, task: str) -> dict[str, Any]:
        """Describe the environment of a task."""
        return {
            "type": "pixio_metaworld",
            "task": f"{task}-v3",
            "camera_names": ["top_cap2"],
            "image_size": self.protocol.image_size,
            "render_profile": self.protocol.render_profile,
            "episode_length": self.settings.steps,
            "ends_at_success": False,
            "expert_noise": 0.0,
        }


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


_ADROIT_STEPS = {"pen": 100, "relocate": 200}


class Adroit(Suite):
    """Two tasks of Adroit, demonstrated by experts whose weights the user has as arrays."""

    name, title = "adroit", "Adroit"

    @property
    def settings(self) -> Any:  # noqa: ANN401 (as above)
        """The part of the protocol that is about this suite."""
        return self.protocol.adroit

    def env(self, task: str) -> dict[str, Any]:
        """Describe the environment of a task."""
        return {
            "type": "pixio_adroit",
            "task": task,
            "camera_names": ["vil_camera"],
            "image_size": self.protocol.image_size,
            "render_profile": self.protocol.render_profile,
            "episode_length": _ADROIT_STEPS[task],
            "experts": None if self.data.adroit is None else str(self.data.adroit),
        }

    def check(self) -> None:
        """Look for the experts and for the package that runs their tasks."""
        check_adroit_is_installed()
        super().check()

    def sources(self) -> dict[str, str]:
        """Return what stands for the experts."""
        assert self.data.adroit is not None
        return {task: ExpertFile(self.data.adroit / f"{task}.npz", "", None).identity() for task in self.tasks}


class AdroitFiles(FromFiles):
    """Two tasks of Adroit, from the public expert files."""

    name, title = "adroit", "Adroit, public demonstrations"

    @property
    def settings(self) -> Any:  # noqa: ANN401 (as above)
        """The part of the protocol that is about this suite."""
        return self.protocol.adroit

    def env(self, task: str) -> dict[str, Any]:
        """Describe the environment of a task."""
        return Adroit(self.protocol, self.data).env(task)

    def file(self, task: str) -> ExpertFile:
        """Return the expert file of a task."""
        return ExpertFile(_expert_folder(self.data, self.name) / f"{task}-v0.pickle", "vil_camera", "proprio")

    def check(self) -> None:
        """Look for the files and for the package that runs their tasks."""
        check_adroit_is_installed()
        super().check()


# Control rates of the suite's tasks, Hz.
_DMC_RATES = {"walker_stand": 40, "walker_walk": 40, "reacher_easy": 50, "cheetah_run": 100, "finger_spin": 50}
_DMC_STEPS = 1000  # of every episode, before actions are repeated


class Dmc(FromFiles):
    """Five tasks of the DeepMind Control Suite, from the public expert files; the score is the return over 10."""

    name, title, by_return = "dmc", "DeepMind Control Suite", True

    @property
    def settings(self) -> Any:  # noqa: ANN401 (as above)
        """The part of the protocol that is about this suite."""
        return self.protocol.dmc

    def env(self, task: str, action_repeat: int = 1) -> dict[str, Any]:
        """Describe the environment of a task."""
        return {
            "type": "pixio_dmc",
            "task": task,
            "fps": _DMC_RATES[task] // action_repeat,
            "action_repeat": action_repeat,
            "episode_length": _DMC_STEPS // action_repeat,
            "image_size": self.protocol.image_size,
            "render_profile": self.protocol.render_profile,
        }

    def file(self, task: str) -> ExpertFile:
        """Return the expert file of a task."""
        return ExpertFile(_expert_folder(self.data, self.name) / f"dmc_{task}-v1.pickle", "camera_0", None)

    def opened(self, task: str, folder: Path, console: Console) -> tuple[DemoStore, dict[str, Any]]:
        """Return the demonstrations of a task's file, and the environment with its frames' size and action repeat."""

        def repeat(steps: int) -> int:
            if _DMC_STEPS % steps:
                raise UserError(
                    f"{self.file(task).path} has episodes of {steps} steps, and those of the control suite have "
                    f"{_DMC_STEPS}, or a whole fraction of them where actions are repeated."
                )
            return _DMC_STEPS // steps

        def rate(steps: int) -> int:
            return _DMC_RATES[task] // repeat(steps)

        count, words = self.settings.demonstrations, f"{self.name} {task}"
        store = self.file(task).converted(folder, count, rate, words, console)
        side = store.features[store.image_keys[0]].shape[0]
        return store, self.env(task, repeat(len(store.episode_range(0)))) | {"image_size": side}


def suites(protocol: RobotLearningProtocol, data: Data) -> list[Suite]:
    """Return the suites that the protocol names; by default Meta-World, and those whose data the user has.

    Raises:
        UserError: A suite is named whose data is not.
    """
    names: Sequence[str] | None = protocol.suites
    if names is None:
        folders = {name: (data.cortexbench or Path()) / f"{name}-expert-v1.0" for name in ("adroit", "dmc")}
        there = {name for name, folder in folders.items() if data.cortexbench and folder.is_dir()}
        names = ["metaworld", *(name for name in folders if name in there or (name == "adroit" and data.adroit))]
    kinds = {"metaworld": Metaworld, "adroit": AdroitFiles if data.adroit is None else Adroit, "dmc": Dmc}
    for name in names:
        if name != "metaworld" and data.cortexbench is None and not (name == "adroit" and data.adroit):
            own = " or data.adroit (a folder of pen.npz and relocate.npz)" if name == "adroit" else ""
            raise UserError(
                f"The suite {name} needs demonstrations: set data.cortexbench to the folder that has "
                f"{name}-expert-v1.0{own}."
            )
    return [kinds[name](protocol, data) for name in dict.fromkeys(names)]


def check_adroit_is_installed() -> None:
    """Look for the package that runs Adroit.

    Raises:
        UserError: It is not installed.
    """
    if importlib.util.find_spec("gymnasium_robotics") is None:
        raise UserError(
            "Adroit needs gymnasium-robotics, which is not installed: pip install 'lerobot_env_pixio[adroit]'."
        )


def _expert_folder(data: Data, suite: str) -> Path:
    assert data.cortexbench is not None
    return data.cortexbench / f"{suite}-expert-v1.0"
