"""CortexBench's public expert files as demonstration stores.

    <data.cortexbench>/dmc-expert-v1.0/dmc_walker_walk-v1.pickle
    <data.cortexbench>/adroit-expert-v1.0/relocate-v0.pickle

Each is a list of episodes: `images` (T, H, W, 3) uint8, `actions` (T, A), `rewards` (T,), and `env_infos`, of which the
proprioception is read.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore
from pixio_robot.demos.formats.transfer import Episode, write_store
from pixio_robot.demos.store.codecs import LOSSLESS
from pixio_robot.demos.store.layout import Feature
from pixio_robot.downstream.robot_learning.plain_pickle import read_plain_pickle

PUBLIC_FILE = "public file"
"""Attribute `expert` of the stores that are made of them."""
_HASHED = 1 << 20  # bytes of a file's beginning that tell it from another of its size


@dataclass(frozen=True)
class ExpertFile:
    """One of the files.

    Attributes:
        path: Where it is.
        camera: The store's name of the camera.
        proprioception: Name in `env_infos`; None stands for none, of which the store says so by one 0.
    """

    path: Path
    camera: str
    proprioception: str | None

    def check(self) -> None:
        """Look that it is there.

        Raises:
            UserError: It is not; the message says what is.
        """
        if self.path.is_file():
            return
        folder = self.path.parent
        there = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
        found = f"that folder has {', '.join(there[:5]) or 'nothing'}" if folder.is_dir() else "there is no such folder"
        raise UserError(
            f"{self.path.name} was looked for in {folder}, and {found}: set data.cortexbench to the folder that has "
            f"CortexBench's {folder.name}."
        )

    def identity(self) -> str:
        """Return a short text that differs where the file does, without reading all of it."""
        with self.path.open("rb") as file:
            beginning = file.read(_HASHED)
        return hashlib.blake2b(beginning + str(self.path.stat().st_size).encode(), digest_size=6).hexdigest()

    def converted(
        self, folder: Path, episodes: int, rate: Callable[[int], int], task: str, console: Console
    ) -> DemoStore:
        """Return the store of the first episodes, made now or earlier.

        Args:
            folder: Of stores.
            episodes: How many.
            rate: The control rate in Hz of episodes of so many steps.
            task: In words.
            console: Where progress is shown.

        Raises:
            UserError: The file is missing, damaged, holds anything but arrays and plain containers, or is no expert file.
        """
        self.check()
        path = folder / f"{self.path.stem}_{self.identity()}_{episodes}.zarr"
        if path.exists():
            return DemoStore.open(path)
        console.print(f"reading {self.path}", highlight=False, soft_wrap=True)
        found = read_plain_pickle(self.path)
        if not isinstance(found, list) or len(found) < episodes:
            what = f"a list of {len(found)} episodes" if isinstance(found, list) else f"a {type(found).__name__}"
            raise UserError(f"{self.path} holds {what}, and a list of at least {episodes} is needed.")
        first = self._episode(found, 0)
        features = {key: Feature(values.shape[1:], values.dtype.name) for key, values in first.items()}
        attributes = {
            "fps": rate(len(first["action"])),
            "expert": PUBLIC_FILE,
            "source": self.path.name,
            "source_fingerprint": self.identity(),
        }
        folder.mkdir(parents=True, exist_ok=True)
        demonstrations = self._episodes(found, episodes, task)
        return write_store(path, features, attributes, demonstrations, episodes, LOSSLESS, console)

    def _episodes(self, found: list[Any], episodes: int, task: str) -> Iterator[Episode]:
        for number in range(episodes):
            yield Episode(self._episode(found, number), seed=None, success=None, task=task)
            found[number] = None  # its images are in the store

    def _episode(self, found: list[Any], number: int) -> dict[str, np.ndarray]:
        episode = found[number]
        images = self._array(episode, "images", number, 4)
        if images.dtype != np.uint8 or images.shape[-1] != 3:
            raise UserError(
                f"{self.path}, episode {number}: images are {images.dtype} {images.shape}, and uint8 (steps, H, W, 3) "
                f"was expected."
            )
        actions = self._array(episode, "actions", number, 2).astype(np.float32)
        if self.proprioception is None:
            states = np.zeros((len(actions), 1), np.float32)
        else:
            infos = episode.get("env_infos")
            states = self._array(infos, self.proprioception, number, 2).astype(np.float32)
        if not len(images) == len(actions) == len(states) > 0:
            raise UserError(
                f"{self.path}, episode {number} has {len(images)} images, {len(actions)} actions and {len(states)} states: "
                f"each step was expected to have one of each."
            )
        return {f"observation.images.{self.camera}": images, "observation.state": states, "action": actions}

    def _array(self, owner: object, key: str, number: int, dimensions: int) -> np.ndarray:
        value = owner.get(key) if isinstance(owner, Mapping) else None
        if not isinstance(value, np.ndarray) or value.ndim != dimensions:
            what = "is not there"
            if value is not None:
                what = f"has {value.ndim} axes" if isinstance(value, np.ndarray) else f"is a {type(value).__name__}"
            raise UserError(
                f"{self.path}, episode {number}: {key} {what}, and an array of {dimensions} axes was expected."
            )
        return value
