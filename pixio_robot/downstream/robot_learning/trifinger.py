"""TriFinger: three fingers reach for a cube or move it, from CortexBench's public demonstrations.

    <data.cortexbench>/trifinger-demos/{reach,move}/demo-0000/dts-0p4/downsample.pth

Each is one episode: `image_60` (T, 270, 270, 3), `ft_pos_cur` (T, 9), the fingertips' positions in metres, and `delta_ftpos`
(≥ T − 1, 9), their next moves. No simulator of the robot stands in this package: a policy is scored by what it does in place of
the demonstrator on demonstrations held out.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore
from pixio_robot.demos.formats.transfer import Episode, write_store
from pixio_robot.demos.store.codecs import LOSSLESS
from pixio_robot.demos.store.layout import Feature
from pixio_robot.downstream.robot_learning.expert_files import PUBLIC_FILE
from pixio_robot.downstream.robot_learning.plain_pickle import read_plain_pickle
from pixio_robot.downstream.robot_learning.suite import FromDemonstrations, Recipe

DEMOS_FOLDER = "trifinger-demos"
_FILE = "downsample.pth"
_CAMERA = "image_60"
_STEPS_PER_SECOND = 2.5  # of demonstrations; a store wants a whole number
_FINGERS = {"reach": 1, "move": 3}


class Trifinger(FromDemonstrations):
    """Reach the cube with one finger; move it to where a picture shows it with three."""

    name, title = "trifinger", "TriFinger, actions of demonstrations held out"

    @property
    def settings(self) -> Any:  # noqa: ANN401 (each suite has its own)
        """The part of the protocol that is about this suite."""
        return self.protocol.trifinger

    def recipe(self, task: str) -> Recipe:
        """Return CortexBench's: one frame, two layers of 2,000."""
        settings = self.settings
        epochs = settings.reach_epochs if task == "reach" else settings.move_epochs
        return Recipe(epochs, settings.batch_size, settings.learning_rate, settings.hidden_width, 2, 1)

    def env(self, task: str) -> dict[str, Any]:
        """Describe an environment that nothing is rolled out in."""
        return {"type": "pixio_pusht", "task": "PushT"}

    def check(self) -> None:
        """Look that there are enough demonstrations.

        Raises:
            UserError: There are not; the message says what is.
        """
        for task in self.tasks:
            self._files(task)

    def opened(self, task: str, folder: Path, console: Console) -> tuple[DemoStore, dict[str, Any]]:
        """Return the first demonstrations."""
        return self._store(task, self._files(task)[: self.settings.demonstrations], folder, console), self.env(task)

    def held_out(self, task: str, folder: Path, console: Console) -> DemoStore:
        """Return the next demonstrations."""
        return self._store(task, self._files(task)[self.settings.demonstrations :], folder, console)

    def sources(self) -> dict[str, str]:
        """Return what stands for the files: their names and sizes."""
        return {task: _identity(self._files(task)) for task in self.tasks}

    def _files(self, task: str) -> list[Path]:
        assert self.data.cortexbench is not None
        root = self.data.cortexbench / DEMOS_FOLDER / task
        found = sorted(root.glob(f"demo-*/**/{_FILE}"))
        wanted = self.settings.demonstrations + self.settings.rollouts
        if len(found) < wanted:
            raise UserError(
                f"{wanted} demonstrations were looked for as {root}/demo-*/*/{_FILE}, and there are {len(found)}: set "
                f"data.cortexbench to the folder that has CortexBench's {DEMOS_FOLDER}, or fewer "
                f"protocol.robot_learning.trifinger.demonstrations and rollouts."
            )
        return found[:wanted]

    def _store(self, task: str, files: list[Path], folder: Path, console: Console) -> DemoStore:
        path = folder / f"trifinger_{task}_{_identity(files)}.zarr"
        if path.exists():
            return DemoStore.open(path)
        folder.mkdir(parents=True, exist_ok=True)
        first = _episode(files[0], task)
        features = {key: Feature(values.shape[1:], values.dtype.name) for key, values in first.items()}
        attributes = {"fps": round(_STEPS_PER_SECOND), "expert": PUBLIC_FILE, "source": f"{DEMOS_FOLDER}/{task}"}

        def episodes() -> Iterator[Episode]:
            for file in files:
                yield Episode(_episode(file, task), seed=None, success=None, task=f"{task} the cube")

        return write_store(path, features, attributes, episodes(), len(files), LOSSLESS, console)


def _identity(files: list[Path]) -> str:
    parts = [f"{file.parts[-3]}/{file.parts[-2]} {file.stat().st_size}" for file in files]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=6).hexdigest()


def _episode(file: Path, task: str) -> dict[str, np.ndarray]:
    """Read a demonstration; the last instant has no action, and its frame is the goal of moving."""
    content = read_plain_pickle(file)
    frames = _array(content, _CAMERA, file, 4)
    if frames.dtype != np.uint8:
        raise UserError(f"{file}: {_CAMERA} is {frames.dtype}, and uint8 was expected.")
    fingertips, moves = (_array(content, key, file, 2).astype(np.float32) for key in ("ft_pos_cur", "delta_ftpos"))
    steps = len(frames) - 1
    if not (len(fingertips) > steps <= len(moves) and steps > 0):
        raise UserError(
            f"{file} has {len(frames)} frames, {len(fingertips)} fingertip positions and {len(moves)} moves: each step was "
            f"expected to have one of each."
        )
    episode = {
        f"observation.images.{_CAMERA}": frames[:-1],
        "observation.state": fingertips[:steps],
        "action": moves[:steps, : 3 * _FINGERS[task]],
    }
    if task == "move":
        episode["observation.images.goal"] = np.repeat(frames[-1:], steps, axis=0)
    return episode


def _array(content: object, key: str, file: Path, axes: int) -> np.ndarray:
    value = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(value, np.ndarray) or value.ndim != axes:
        what = "is not there" if value is None else f"is no array of {axes} axes"
        raise UserError(f"{file}: {key} {what}, and a demonstration of TriFinger has it.")
    return value
