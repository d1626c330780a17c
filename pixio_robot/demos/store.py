"""DemoStore: demonstrations in one zarr v3 group, appended episode by episode, safe against being killed.

Layout, for T steps in E episodes, which readers of diffusion policy's replay buffers know::

    data/<key>               (T, ...)  observation.images.<camera> uint8 (T, H, W, 3); others float32
    meta/episode_ends        (E,) int64, one past the episode's last step
    meta/episode_seeds       (E,) int64, -1 where unknown
    meta/episode_success     (E,) int8, 1 or 0, -1 where unknown
    meta/episode_tasks       (E,) int64, index into the attribute `tasks`
    meta/episode_checksums   (E,) uint64, of the episode's data
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import zarr
from filelock import FileLock, Timeout

from pixio_robot.demos.arrays import (
    CODEC_NAME,
    append_rows,
    check_files,
    create_array,
    explains_full_disk,
    open_array,
    read_rows,
)
from pixio_robot.demos.statistics import Statistics, compute_statistics
from pixio_robot.errors import UserError

SCHEMA = "pixio_robot.demo_store"
SCHEMA_VERSION = 1

_ENDS = "meta/episode_ends"
_SEEDS = "meta/episode_seeds"
_SUCCESS = "meta/episode_success"
_TASKS = "meta/episode_tasks"
_CHECKSUMS = "meta/episode_checksums"
_META_DTYPES = {_SEEDS: "int64", _SUCCESS: "int8", _TASKS: "int64", _CHECKSUMS: "uint64", _ENDS: "int64"}
_UNKNOWN = -1


@dataclass(frozen=True)
class Feature:
    """What one step holds under a key.

    Attributes:
        shape: Shape of one step, without the time axis.
        dtype: NumPy's name of the data type.
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def is_image(self) -> bool:
        """Whether a step is a uint8 (H, W, C) frame."""
        return self.dtype == "uint8" and len(self.shape) == 3


class DemoStore:
    """Demonstrations on disk.

    An episode exists once its end is written: whatever kills a recording process, a store that is opened afterwards has
    every finished episode bit for bit and goes on from there. Data beyond the last end are remains of an unfinished
    episode, which the next one overwrites. Many processes may read while one appends.

    Use `create` or `open`. Pickles as its path: a copy in another process opens the store there.
    """

    def __init__(self, path: Path, attributes: dict[str, Any]) -> None:
        self.path = path
        self._attributes = attributes
        self.features = {
            key: Feature(tuple(feature["shape"]), feature["dtype"])
            for key, feature in attributes["features"].items()
        }
        self._arrays = {key: open_array(path, f"data/{key}", "r") for key in self.features}
        self._meta = {name: self._read_meta(name) for name in _META_DTYPES}
        n_episodes = _count_ascending(self._meta[_ENDS])
        self._meta = {name: values[:n_episodes] for name, values in self._meta.items()}
        self._writable: dict[str, zarr.Array] | None = None
        self._lock = FileLock(path / ".writer.lock", timeout=0)

    @classmethod
    def create(
        cls, path: str | Path, features: Mapping[str, Feature], attributes: Mapping[str, Any]
    ) -> Self:
        """Make an empty store.

        Args:
            path: Folder to make; its name ends in ``.zarr``.
            features: What a step holds, by LeRobot's feature names.
            attributes: What else is known of the demonstrations, as JSON values; ``fps`` (Hz) is needed.

        Raises:
            UserError: There is something at the path, or the disk is full.
        """
        path = Path(path)
        assert "fps" in attributes
        if path.exists():
            raise UserError(
                f"Cannot make a demonstration store at {path}: it exists; choose another path or delete it."
            )
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        recorded = dict(attributes) | {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "codec": CODEC_NAME,
            "tasks": [],
            "features": {key: asdict(feature) for key, feature in features.items()},
        }
        with explains_full_disk(path, "nothing was recorded yet"):
            try:
                group = zarr.open_group(str(unfinished), mode="w", zarr_format=3, attributes=recorded)
                for key, feature in features.items():
                    create_array(group, f"data/{key}", feature.shape, feature.dtype, is_image=feature.is_image)
                for name, dtype in _META_DTYPES.items():
                    create_array(group, name, (), dtype)
                os.replace(unfinished, path)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        return cls.open(path)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a store, to read it and to append to it.

        Raises:
            UserError: There is no demonstration store, or a file that belongs to a finished episode is missing or cut
                off. An episode cut off while it was recorded is no error: it is not there.
        """
        path = Path(path)
        store = cls(path, _read_attributes(path))
        for key, array in store._arrays.items():
            if array.shape[0] < store.num_steps:
                raise UserError(
                    f"The demonstration store {path} is damaged: data/{key} has {array.shape[0]} steps of "
                    f"{store.num_steps}; restore it from a copy or record it again."
                )
            check_files(path, f"data/{key}", array, store.num_steps)
        return store

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the path alone."""
        return _reopen, (type(self), self.path)

    @property
    def attributes(self) -> dict[str, Any]:
        """Everything recorded of the store as a whole: schema, fps, environment, versions, codec, tasks."""
        return dict(self._attributes)

    @property
    def fps(self) -> int:
        """Control rate in Hz."""
        return self._attributes["fps"]

    @property
    def image_keys(self) -> list[str]:
        """Keys of the cameras."""
        return [key for key, feature in self.features.items() if feature.is_image]

    @property
    def episode_ends(self) -> np.ndarray:
        """One past each episode's last step, int64 (E,)."""
        return self._meta[_ENDS]

    @property
    def episode_seeds(self) -> np.ndarray:
        """The seed that each episode was recorded with, int64 (E,), -1 where unknown."""
        return self._meta[_SEEDS]

    @property
    def episode_success(self) -> np.ndarray:
        """Whether each episode succeeded, int8 (E,): 1, 0, or -1 where unknown."""
        return self._meta[_SUCCESS]

    @property
    def episode_tasks(self) -> list[str]:
        """Each episode's task in words."""
        return [self._attributes["tasks"][index] for index in self._meta[_TASKS]]

    @property
    def num_episodes(self) -> int:
        """Number of finished episodes."""
        return len(self.episode_ends)

    @property
    def num_steps(self) -> int:
        """Number of steps in all finished episodes."""
        return int(self.episode_ends[-1]) if self.num_episodes else 0

    def episode_range(self, index: int) -> range:
        """Return the steps of an episode."""
        start = self.episode_ends[index - 1] if index else 0
        return range(int(start), int(self.episode_ends[index]))

    def episode(self, index: int) -> dict[str, np.ndarray]:
        """Return all data of an episode, each key (steps, ...)."""
        steps = self.episode_range(index)
        return {key: self.read(key, steps.start, steps.stop) for key in self.features}

    def read(self, key: str, start: int, stop: int) -> np.ndarray:
        """Return the steps from `start` to before `stop` of one key.

        Raises:
            UserError: They are damaged on disk.
        """
        assert 0 <= start <= stop <= self.num_steps
        return read_rows(self.path, f"data/{key}", self._arrays[key], slice(start, stop))

    def read_steps(self, key: str, steps: np.ndarray) -> np.ndarray:
        """Return steps of one key in any order, with repeats, decoding each once.

        Raises:
            UserError: They are damaged on disk.
        """
        unique, position = np.unique(steps, return_inverse=True)
        assert len(unique) == 0 or (unique[0] >= 0 and unique[-1] < self.num_steps)
        rows = read_rows(self.path, f"data/{key}", self._arrays[key], unique)
        return rows if len(unique) == len(steps) and (unique == steps).all() else rows[position]

    def statistics(self) -> Statistics:
        """Return mean, std, min, max and count of each key in LeRobot's format, see `compute_statistics`."""
        return compute_statistics(self)

    def fingerprint(self) -> str:
        """Return a short text that differs where the data differ, and is the same for a copy."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update(json.dumps(self._attributes["features"], sort_keys=True).encode())
        digest.update(self.episode_ends.tobytes())
        digest.update(self._meta[_CHECKSUMS].tobytes())
        return digest.hexdigest()

    def append_episode(
        self, episode: Mapping[str, np.ndarray], *, seed: int | None, success: bool | None, task: str
    ) -> None:
        """Add a finished episode.

        Args:
            episode: Each key of `features`, (steps, ...).
            seed: The seed that it was recorded with.
            success: Whether it succeeded.
            task: The task in words.

        Raises:
            UserError: The episode does not fit the features, another process is appending, or the disk is full. The
                finished episodes are kept.
        """
        n_steps = self._check_episode(episode)
        self.begin_writing()
        assert self._writable is not None
        with explains_full_disk(self.path, f"{self.num_episodes} finished episodes are kept"):
            for key in self.features:
                append_rows(self._writable[f"data/{key}"], self.num_steps, np.asarray(episode[key]))
            row = {
                _SEEDS: _UNKNOWN if seed is None else seed,
                _SUCCESS: _UNKNOWN if success is None else int(success),
                _TASKS: self._task_index(task),
                _CHECKSUMS: _checksum(episode),
                _ENDS: self.num_steps + n_steps,  # last: this makes the episode exist
            }
            for name, value in row.items():
                append_rows(self._writable[name], self.num_episodes, np.array([value], _META_DTYPES[name]))
        self._meta = {
            name: np.append(values, np.array(row[name], values.dtype)) for name, values in self._meta.items()
        }
        self._arrays = {key: self._writable[f"data/{key}"] for key in self.features}

    def begin_writing(self) -> None:
        """Become the one process that appends, until `close`; `append_episode` does it where nobody did.

        Raises:
            UserError: Another process is appending.
        """
        if self._writable is not None:
            return
        try:
            self._lock.acquire()
        except Timeout:
            raise UserError(
                f"Another process is recording into {self.path}: wait for it to end or choose another path."
            ) from None
        for unfinished_file in self.path.rglob("*.partial"):  # zarr's temporary files, from a killed process
            unfinished_file.unlink()
        names = [f"data/{key}" for key in self.features] + list(_META_DTYPES)
        self._writable = {name: open_array(self.path, name, "r+") for name in names}

    def close(self) -> None:
        """Let other processes append; reading goes on."""
        self._writable = None
        self._lock.release()

    def _check_episode(self, episode: Mapping[str, np.ndarray]) -> int:
        if set(episode) != set(self.features):
            raise UserError(
                f"The episode has {sorted(episode)} but {self.path} holds {sorted(self.features)}: "
                "record the same keys or make a new store."
            )
        lengths = {len(values) for values in episode.values()}
        if len(lengths) != 1 or 0 in lengths:
            raise UserError(f"The keys of an episode have {sorted(lengths)} steps: give each the same, at least 1.")
        for key, feature in self.features.items():
            found = Feature(episode[key].shape[1:], episode[key].dtype.name)
            if found != feature:
                raise UserError(
                    f"{key} of the episode is {found.dtype} {found.shape} but {self.path} holds {feature.dtype} "
                    f"{feature.shape}: record the same or make a new store."
                )
        return lengths.pop()

    def _task_index(self, task: str) -> int:
        tasks = self._attributes["tasks"]
        if task not in tasks:
            tasks = [*tasks, task]
            zarr.open_group(str(self.path), mode="r+").update_attributes({"tasks": tasks})
            self._attributes["tasks"] = tasks
        return tasks.index(task)

    def _read_meta(self, name: str) -> np.ndarray:
        return read_rows(self.path, name, open_array(self.path, name, "r"), slice(None))


def _reopen(cls: type[DemoStore], path: Path) -> DemoStore:
    return cls(path, _read_attributes(path))  # `open` without its check of every file


def _read_attributes(path: Path) -> dict[str, Any]:
    try:
        attributes = json.loads((path / "zarr.json").read_bytes()).get("attributes", {})
    except (OSError, ValueError):
        raise UserError(
            f"{path} is not a demonstration store: it has no readable zarr.json; give the path of a .zarr folder made "
            "by scripts/collect_demos.py or scripts/convert_demos.py."
        ) from None
    if attributes.get("schema") != SCHEMA or attributes.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{path} is a zarr group but not a demonstration store of version {SCHEMA_VERSION}; give the path of one "
            "made by scripts/collect_demos.py or scripts/convert_demos.py."
        )
    return attributes


def _count_ascending(ends: np.ndarray) -> int:
    """Count the ends that were written: a row that exists but was not written yet reads as 0."""
    rises = np.diff(ends, prepend=0) > 0
    return len(ends) if rises.all() else int(np.argmin(rises))


def _checksum(episode: Mapping[str, np.ndarray]) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for key in sorted(episode):
        digest.update(np.ascontiguousarray(episode[key]))
    return int.from_bytes(digest.digest(), "little")
