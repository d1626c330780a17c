"""DemoStore: demonstrations in one zarr v3 group, appended episode by episode, safe against being killed.

Layout, for T steps in E episodes, which readers of diffusion policy's replay buffers know::

    data/<key>               (T, ...)  observation.images.<camera> uint8 (T, H, W, 3); others float32
    data/intervention        (T, 1)    optional, LeRobot's name: 1 where a demonstrator acted, whom a policy shall imitate
    meta/episode_ends        (E,) int64, one past the episode's last step
    meta/episode_seeds       (E,) int64, -1 where unknown
    meta/episode_success     (E,) int8, 1 or 0, -1 where unknown
    meta/episode_tasks       (E,) int64, index into the attribute `tasks`
    meta/episode_checksums   (E,) uint64, of the episode's data
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import zarr
from filelock import FileLock, Timeout

from pixio_robot.common.errors import UserError
from pixio_robot.common.storage.files import explains_full_disk
from pixio_robot.demos.store.arrays import (
    append_rows,
    check_files,
    explains_damage,
    open_array,
    read_rows,
)
from pixio_robot.demos.store.codecs import LOSSLESS, is_lossless, register_codecs_of
from pixio_robot.demos.store.frame_reader import FrameReader
from pixio_robot.demos.store.layout import (
    CHECKSUMS,
    ENDS,
    META_DTYPES,
    SEEDS,
    SUCCESS,
    TASKS,
    UNKNOWN,
    Feature,
    check_episode,
    check_finite,
    checksum,
    create_layout,
    data_name,
    names_in,
    read_attributes,
    read_meta,
)
from pixio_robot.demos.store.locations import Location, as_location, open_zarr
from pixio_robot.demos.store.statistics import Statistics, compute_statistics


class DemoStore:
    """Demonstrations on disk, or, to read alone, in a zip file or at a URL.

    An episode exists once its end is written: whatever kills a recording process, a store that is opened
    afterwards has every finished episode bit for bit and goes on from there. Data beyond the last end are
    remains of an unfinished episode, which the next one overwrites. Many processes may read while one
    appends.

    Use `create` or `open`. Pickles as its path: a copy in another process opens the store there.
    """

    def __init__(self, path: Location, attributes: dict[str, Any]) -> None:
        self.path = path
        self._attributes = attributes
        self.features = {
            key: Feature(tuple(feature["shape"]), feature["dtype"]) for key, feature in attributes["features"].items()
        }
        register_codecs_of(attributes, str(path))
        self._open_arrays()
        self._meta = read_meta(path)
        self._writable: dict[str, zarr.Array] | None = None
        self._lock: FileLock | None = None

    @classmethod
    def create(
        cls,
        path: str | Path,
        features: Mapping[str, Feature],
        attributes: Mapping[str, Any],
        codec: str = LOSSLESS,
    ) -> Self:
        """Make an empty store.

        Args:
            path: Folder on disk to make; its name ends in ``.zarr``.
            features: What a step holds, by LeRobot's feature names.
            attributes: What else is known of the demonstrations, as JSON values; ``fps`` (Hz) is needed, ``names`` says by
                key what each number is.
            codec: How frames are kept: ``lossless``; or, much smaller but not what the camera gave, ``jpeg`` or
                ``jpegxl``, which the package imagecodecs reads and writes.

        Raises:
            UserError: There is something at the path, the codec is unknown or not installed, or the disk is full.
        """
        assert "fps" in attributes
        location = as_location(path)
        if isinstance(location, str):
            raise UserError(
                f"{path} is a URL, where stores can only be read: record to a folder and convert that to it."
            )
        create_layout(location, features, attributes, codec)
        return cls.open(path)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a store, to read it and, if it is a folder, to append to it.

        Args:
            path: A folder, a zip file of one (`pixio_robot.demos.formats.store.export_store` makes it), or a URL that
                fsspec opens, such as ``s3://bucket/demos.zarr``.

        Raises:
            UserError: There is no demonstration store, or a file that belongs to a finished episode is
                missing or cut off. An episode cut off while it was recorded is no error: it is not there. Or the
                store needs a package that is not installed.
        """
        path = as_location(path)
        store = cls(path, read_attributes(path))
        for key, array in store._arrays.items():
            if array.shape[0] < store.num_steps:
                raise UserError(
                    f"The demonstration store {path} is damaged: data/{key} has {array.shape[0]} steps of "
                    f"{store.num_steps}; restore it from a copy or record it again."
                )
            check_files(array, store.num_steps, lambda row, key=key: store.read(key, row, row + 1))
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
    def names(self) -> dict[str, list[str]]:
        """What each number of a key is, such as ``elbow.pos``, by key; keys of which it is not known are not there."""
        return names_in(self._attributes, self.features)

    @property
    def image_keys(self) -> list[str]:
        """Keys of the cameras."""
        return [key for key, feature in self.features.items() if feature.is_image]

    @property
    def episode_ends(self) -> np.ndarray:
        """One past each episode's last step, int64 (E,)."""
        return self._meta[ENDS]

    @property
    def episode_seeds(self) -> np.ndarray:
        """The seed that each episode was recorded with, int64 (E,), -1 where unknown."""
        return self._meta[SEEDS]

    @property
    def episode_success(self) -> np.ndarray:
        """Whether each episode succeeded, int8 (E,): 1, 0, or -1 where unknown."""
        return self._meta[SUCCESS]

    @property
    def episode_tasks(self) -> list[str]:
        """Each episode's task in words."""
        return [self._attributes["tasks"][index] for index in self._meta[TASKS]]

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
        array, frames = self._array(key)
        if frames is None:
            return read_rows(self.path, data_name(key), array, slice(start, stop))
        return self.read_steps(key, np.arange(start, stop))

    def read_steps(self, key: str, steps: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return steps of one key in any order, with repeats, decoding each once.

        Args:
            key: One of `features`.
            steps: Steps of the store.
            out: Where to put them, (steps, ...); an array is made by default.

        Raises:
            UserError: They are damaged on disk.
        """
        assert len(steps) == 0 or (np.min(steps) >= 0 and np.max(steps) < self.num_steps)
        array, frames = self._array(key)
        feature = self.features[key]
        values = np.empty((len(steps), *feature.shape), feature.dtype) if out is None else out
        if frames is None:
            unique, position = np.unique(steps, return_inverse=True)
            values[...] = read_rows(self.path, data_name(key), array, unique)[position]
        else:
            with explains_damage(self.path, data_name(key)):
                frames.read(np.asarray(steps), values)
        return values

    def statistics(self, num_episodes: int | None = None) -> Statistics:
        """Return what `compute_statistics` finds in the first `num_episodes` episodes, or in all.

        Raises:
            UserError: A number is not finite.
        """
        ends = self.episode_ends[:num_episodes]
        statistics = compute_statistics(self.features, int(ends[-1]) if len(ends) else 0, self.read_steps)
        for key in (key for key, found in statistics.items() if not np.isfinite(found["mean"]).all()):
            for number in range(len(ends)):
                steps = self.episode_range(number)
                check_finite(str(self.path), self.names, number, {key: self.read(key, steps.start, steps.stop)})
        return statistics

    def fingerprint(self) -> str:
        """Return a short text that differs where the data differ, and is the same for a copy."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update(json.dumps(self._attributes["features"], sort_keys=True).encode())
        digest.update(self.episode_ends.tobytes())
        digest.update(self._meta[CHECKSUMS].tobytes())
        codec = self._attributes.get("codec", "")
        if not is_lossless(codec):
            digest.update(codec.encode())  # the checksums are of what was recorded, not of what comes back
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
            UserError: The episode does not fit the features, another process is appending, or the disk is
                full. The finished episodes are kept.
        """
        n_steps = check_episode(self.path, self.features, episode)
        self.begin_writing()
        assert self._writable is not None
        assert isinstance(self.path, Path)
        with explains_full_disk(self.path, f"{self.num_episodes} finished episodes are kept"):
            for key in self.features:
                append_rows(self._writable[data_name(key)], self.num_steps, np.asarray(episode[key]))
            row = {
                SEEDS: UNKNOWN if seed is None else seed,
                SUCCESS: UNKNOWN if success is None else int(success),
                TASKS: self._task_index(task),
                CHECKSUMS: checksum(episode),
                ENDS: self.num_steps + n_steps,  # last: this makes the episode exist
            }
            for name, value in row.items():
                append_rows(self._writable[name], self.num_episodes, np.array([value], META_DTYPES[name]))
        self._meta = {name: np.append(values, np.array(row[name], values.dtype)) for name, values in self._meta.items()}
        self._arrays = {key: self._writable[data_name(key)] for key in self.features}

    def begin_writing(self) -> None:
        """Become the one process that appends, until `close`; `append_episode` does it where nobody did.

        Raises:
            UserError: Another process is appending, or the store is no folder.
        """
        if self._writable is not None:
            return
        if not isinstance(self.path, Path) or self.path.is_file():
            raise UserError(
                f"{self.path} can only be read: convert it to a .zarr folder with scripts/convert_demos.py to add episodes."
            )
        # Inside the folder of an array, where zarr lists no members and so complains of no foreign file.
        self._lock = FileLock(self.path / ENDS / "writer.lock", timeout=0)
        try:
            self._lock.acquire()
        except Timeout:
            raise UserError(
                f"Another process is recording into {self.path}: wait for it to end or choose another path."
            ) from None
        # Somebody may have appended since this store was opened.
        self._attributes, self._meta = read_attributes(self.path), read_meta(self.path)
        for unfinished_file in self.path.rglob("*.partial"):  # zarr's temporary files, from a killed process
            unfinished_file.unlink()
        names = [data_name(key) for key in self.features] + list(META_DTYPES)
        source = open_zarr(self.path, read_only=False)
        self._writable = {name: open_array(source, self.path, name, "r+") for name in names}

    def close(self) -> None:
        """Let other processes append; reading goes on."""
        self._writable = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _open_arrays(self) -> None:
        source = open_zarr(self.path)
        self._arrays = {key: open_array(source, self.path, data_name(key), "r") for key in self.features}
        self._readers = {key: FrameReader.of(self.path, data_name(key), array) for key, array in self._arrays.items()}
        self._process = os.getpid()

    def _array(self, key: str) -> tuple[zarr.Array, FrameReader | None]:
        if os.getpid() != self._process:  # forked: open zip files and connections are still the parent's
            self._open_arrays()
        return self._arrays[key], self._readers[key]

    def _task_index(self, task: str) -> int:
        tasks = self._attributes["tasks"]
        if task not in tasks:
            tasks = [*tasks, task]
            zarr.open_group(str(self.path), mode="r+").update_attributes({"tasks": tasks})
            self._attributes["tasks"] = tasks
        return tasks.index(task)


def _reopen(cls: type[DemoStore], path: Location) -> DemoStore:
    return cls(path, read_attributes(path))  # `open` without its check of every file
