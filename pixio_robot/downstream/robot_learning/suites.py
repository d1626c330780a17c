"""CortexBench's suites, and what was published of them."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore
from pixio_robot.downstream.config import Data
from pixio_robot.downstream.robot_learning.config import RobotLearningProtocol
from pixio_robot.downstream.robot_learning.expert_files import ExpertFile
from pixio_robot.downstream.robot_learning.suite import FromFiles, Suite
from pixio_robot.downstream.robot_learning.trifinger import DEMOS_FOLDER, Trifinger

PUBLISHED = {
    "VC-1 ViT-L": {"adroit": 52.0, "dmc": 81.3, "metaworld": 88.3, "trifinger": 67.5},
    "R3M ResNet-50": {"adroit": 74.7, "dmc": 72.4, "metaworld": 94.1, "trifinger": 67.4},
    "Theia ViT-B": {"adroit": 60.0, "dmc": 79.9, "metaworld": 87.7, "trifinger": 65.8},
    "DINOv2 ViT-L": {"adroit": 64.0, "dmc": 70.4, "metaworld": 90.9, "trifinger": 66.9},
    "DINOv3 ViT-H+": {"adroit": 63.3, "dmc": 78.5, "metaworld": 89.3, "trifinger": 70.0},
    "Pixio ViT-H": {"adroit": 70.7, "dmc": 77.5, "metaworld": 92.8, "trifinger": 72.8},
}
"""Table 5 of arXiv 2512.15715 by suite, %: the highest evaluation of each run, means over the seeds 100, 200 and 300.

TriFinger's are 1 − the scaled error in a simulator that this package does not have."""


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

    name, title, score = "dmc", "DeepMind Control Suite", "return"

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


_FOLDERS = {"adroit": "adroit-expert-v1.0", "dmc": "dmc-expert-v1.0", "trifinger": DEMOS_FOLDER}


def suites(protocol: RobotLearningProtocol, data: Data) -> list[Suite]:
    """Return the suites that the protocol names; by default Meta-World, and those whose data the user has.

    Raises:
        UserError: A suite is named whose data is not.
    """
    names: Sequence[str] | None = protocol.suites
    if names is None:
        names = ["metaworld"] + [name for name, folder in _FOLDERS.items() if _has(data, name, folder)]
    kinds = {
        "metaworld": Metaworld,
        "adroit": AdroitFiles if data.adroit is None else Adroit,
        "dmc": Dmc,
        "trifinger": Trifinger,
    }
    for name in names:
        if name != "metaworld" and data.cortexbench is None and not (name == "adroit" and data.adroit):
            own = " or data.adroit (a folder of pen.npz and relocate.npz)" if name == "adroit" else ""
            raise UserError(
                f"The suite {name} needs demonstrations: set data.cortexbench to the folder that has {_FOLDERS[name]}{own}."
            )
    return [kinds[name](protocol, data) for name in dict.fromkeys(names)]


def _has(data: Data, suite: str, folder: str) -> bool:
    there = data.cortexbench is not None and (data.cortexbench / folder).is_dir()
    return there or (suite == "adroit" and data.adroit is not None)


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
    return data.cortexbench / _FOLDERS[suite]
