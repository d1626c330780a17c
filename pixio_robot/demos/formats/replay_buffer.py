"""Converts between a demonstration store and the zarr replay buffers of diffusion policy and UMI.

Layout, for T steps in E episodes, as a folder or a zip file that zarr reads, in its version 2 or 3::

    data/<name>            (T, ...)
    meta/episode_ends      (E,) int64, one past the episode's last step

UMI's cameras are compressed as JPEG XL, which the package imagecodecs decodes. A chunk of frames that is not there is
an error; in other arrays it reads as the fill value, as zarr's format has it.
"""

import contextlib
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr
from rich.console import Console
from zarr.errors import UnknownCodecError
from zarr.storage import LocalStore, ZipStore

from pixio_robot.common.errors import UserError
from pixio_robot.common.progress import progress_bar
from pixio_robot.demos.clock import clock_fault
from pixio_robot.demos.formats.named_arrays import (
    Sources,
    choose_sources,
    join,
    sources_of_store,
    sources_to_json,
    split,
)
from pixio_robot.demos.formats.transfer import (
    Episode,
    Record,
    check_not_empty,
    explains_unreadable,
    new_result,
    pack,
    write_store,
)
from pixio_robot.demos.store.arrays import append_rows
from pixio_robot.demos.store.codecs import LOSSLESS
from pixio_robot.demos.store.layout import Feature
from pixio_robot.demos.store.locations import place_in_zip
from pixio_robot.demos.store.store import DemoStore

# What a replay buffer has no place for: an attribute of the zarr group.
_EXTRA = "pixio_robot"
_TIMESTAMP = "timestamp"
_MOST_STEPS = 2**53  # whole numbers of 64 bits and floats hold alike
# UMI has no action: its sampler makes these poses, of each robot, the action.
_UMI_ACTION = ("eef_pos", "eef_rot_axis_angle", "gripper_width")
# The size of chunk and the compressor that diffusion policy chooses.
_CHUNK_BYTES = 2_000_000
_COMPRESSOR = numcodecs.Blosc(cname="lz4", clevel=5, shuffle=numcodecs.Blosc.NOSHUFFLE)


def import_replay_buffer(
    path: str | Path,
    store_path: str | Path,
    *,
    fps: int | None = None,
    image_size: int | None = None,
    codec: str = LOSSLESS,
    console: Console | None = None,
) -> DemoStore:
    """Make a store of a replay buffer; `pixio_robot.demos.formats.named_arrays` says which arrays become what.

    UMI's action, which its files do not have, is the pose of each step, as UMI's own sampler makes it. The task is the
    file's name.

    Args:
        path: The zarr folder, or a zip file of one.
        store_path: Folder to make; complete or not there.
        fps: Control rate in Hz, for a replay buffer without ``timestamp`` (s).
        image_size: Height and width to resize frames to, in pixels; None keeps theirs.
        codec: How frames are kept, see `DemoStore.create`.
        console: Where to show progress: standard error by default.

    Raises:
        UserError: There is no replay buffer with images, it is damaged, needs a codec that is not installed, or its
            rate is unknown, mixed or another; there is something at `store_path`, or the disk is full.
    """
    path, store_path = Path(path), Path(store_path)
    with _opened(path) as group:
        arrays, ends, others = _open_arrays(path, group)
        extra: Any = group.attrs.get(_EXTRA, {})
        record = Record.from_json(extra, len(ends))
        steps = {name: Feature(array.shape[1:], array.dtype.name) for name, array in arrays.items()}
        steps.pop(_TIMESTAMP, None)
        bounds = list(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True))

        def read(name: str) -> Iterator[np.ndarray]:
            return (_read(path, arrays, name, start, end) for start, end in bounds)

        sources, attributes, given_up = choose_sources(path, extra, steps, lambda: _action_names(path, steps), read)
        _check_arrays(path, arrays, sources)
        given_up += _beyond(arrays, int(ends[-1]), others)
        if record.fps is not None and fps not in (None, record.fps):
            raise UserError(f"{path} was recorded at {record.fps:g} Hz, not {fps} Hz: leave fps out.")
        rate = _rate(path, _episodes_of(path, arrays.get(_TIMESTAMP), ends), record.fps or fps)
        attributes = attributes | {"fps": rate, "source": f"replay buffer {path.name}"}
        sources = {key: source.resized(image_size) for key, source in sources.items()}
        features = {key: source.feature for key, source in sources.items()}
        episodes = _read_episodes(path, arrays, bounds, sources, record)
        return write_store(store_path, features, attributes, episodes, len(ends), codec, console, given_up)


def export_replay_buffer(store: DemoStore, path: str | Path, *, console: Console | None = None) -> None:
    """Write a store as a replay buffer of zarr v2: a zip file where the name ends in ``.zip``, else a folder.

    Tasks, seeds, success and the store's attributes go to an attribute that diffusion policy ignores and
    `import_replay_buffer` reads.

    Args:
        store: What to write.
        path: Folder or zip file to make; complete or not there.
        console: Where to show progress: standard error by default.

    Raises:
        UserError: There is something at `path`, the store is empty or damaged, or the disk is full.
    """
    path = Path(path)
    check_not_empty(store)
    with new_result(path) as unfinished:
        if path.suffix != ".zip":
            _write_folder(store, unfinished, console or Console(stderr=True))
            return
        folder = unfinished.with_name(f"{unfinished.name}.folder")
        try:
            _write_folder(store, folder, console or Console(stderr=True))
            pack(folder, unfinished)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _write_folder(store: DemoStore, folder: Path, console: Console) -> None:
    sources = sources_of_store(store, "action")
    extra = asdict(Record.of_store(store)) | {"arrays": sources_to_json(sources)}
    root = zarr.open_group(str(folder), mode="w", zarr_format=2, attributes={_EXTRA: extra})
    data, meta = root.create_group("data"), root.create_group("meta")
    arrays = {
        name: _create_array(data, name, shape, source.feature.dtype)
        for source in sources.values()
        for name, shape in source.parts
    }
    timestamp = arrays.get(_TIMESTAMP)
    if timestamp is None:
        timestamp = _create_array(data, _TIMESTAMP, (), "float64")
    with progress_bar("episodes", store.num_episodes, console) as advance:
        for index in range(store.num_episodes):
            start, episode = store.episode_range(index).start, store.episode(index)
            for key, source in sources.items():
                for name, values in split(source, episode[key]).items():
                    append_rows(arrays[name], start, values)
            if _TIMESTAMP not in arrays:
                append_rows(timestamp, start, np.arange(len(store.episode_range(index))) / store.fps)
            advance()
    ends = _create_array(meta, "episode_ends", (), "int64")
    append_rows(ends, 0, store.episode_ends)


def _create_array(group: zarr.Group, name: str, row_shape: tuple[int, ...], dtype: str) -> zarr.Array:
    row_bytes = int(np.prod(row_shape)) * np.dtype(dtype).itemsize
    return group.create_array(
        name,
        shape=(0, *row_shape),
        dtype=dtype,
        chunks=(max(1, _CHUNK_BYTES // row_bytes), *row_shape),
        compressors=_COMPRESSOR,
        fill_value=0,
        # An absent chunk always means damage then, for whoever reads it.
        config={"write_empty_chunks": True},
    )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zarr.Group]:
    with explains_unreadable(path, "the file" if path.is_file() else "the folder"):
        if path.is_file():
            with zipfile.ZipFile(path):  # says at once where the end of the file is missing
                pass
        store = ZipStore(path, mode="r") if path.is_file() else LocalStore(path, read_only=True)
        group = zarr.open_group(store, path=place_in_zip(path, "") if path.is_file() else "", mode="r")
    try:
        yield group
    finally:
        store.close()


def _open_arrays(path: Path, group: zarr.Group) -> tuple[dict[str, zarr.Array], np.ndarray, list[str]]:
    """Return the arrays of all steps by name, the ends of episodes, and names of arrays that hold no numbers of steps."""
    with explains_unreadable(path, "meta/episode_ends"):
        if "meta/episode_ends" not in group:
            raise UserError(
                f"{path} is a zarr group but no replay buffer: it has no meta/episode_ends; give one that diffusion policy "
                "reads."
            )
        ends = np.asarray(zarr.open_array(group.store, path=f"{group.path}/meta/episode_ends".lstrip("/"), mode="r")[:])
    is_rising = ends.ndim == 1 and ends.dtype.kind in "fiu" and len(ends) > 0 and (np.abs(ends) < _MOST_STEPS).all()
    if not is_rising or (ends != np.rint(ends)).any() or (np.diff(ends.astype(np.int64), prepend=0) <= 0).any():
        raise UserError(
            f"{path} has no episodes, or meta/episode_ends does not rise in whole numbers (it is {ends.ravel()[:5].tolist()}): "
            "give one with demonstrations, with one past the last step of each."
        )
    ends = ends.astype(np.int64)
    with explains_unreadable(path, "data"):
        arrays = {name: _open_array(path, group, name) for name in _array_names(path, group, "data")}
        beside = [f"meta/{name}" for name in _array_names(path, group, "meta") if name != "episode_ends"]
    usable = {name: array for name, array in arrays.items() if array.ndim > 0 and array.dtype.kind in "fiub"}
    for name, array in usable.items():
        if array.shape[0] < ends[-1]:
            raise UserError(
                f"{path} is damaged or incomplete: data/{name} has {array.shape[0]} steps of {ends[-1]}; get it anew "
                "from where it came from."
            )
    return usable, ends, sorted(set(arrays) - set(usable)) + beside


def _array_names(path: Path, group: zarr.Group, folder: str) -> list[str]:
    """List the arrays without opening them, which fails where a codec is not installed; in folders, too, if there are any."""
    if path.is_dir():
        files = [file.relative_to(path).as_posix() for file in path.glob(f"{folder}/**/*")]
    else:
        prefix = f"{group.path}/".lstrip("/")
        with zipfile.ZipFile(path) as archive:
            files = [name.removeprefix(prefix) for name in archive.namelist() if name.startswith(prefix)]
    names = {match[1] for file in files if (match := re.fullmatch(rf"{folder}/(.+)/(\.zarray|zarr\.json)", file))}
    return sorted(name for name in names if not any(other.startswith(f"{name}/") for other in names))


def _open_array(path: Path, group: zarr.Group, name: str) -> zarr.Array:
    place = f"{group.path}/data/{name}".lstrip("/")
    try:
        array = zarr.open_array(group.store, path=place, mode="r")
    except UnknownCodecError:
        _register_image_codecs(path, name)
        array = zarr.open_array(group.store, path=place, mode="r")
    if array.ndim == 4:
        array = zarr.open_array(group.store, path=place, mode="r", config={"read_missing_chunks": False})
    return array


def _register_image_codecs(path: Path, name: str) -> None:
    try:
        from imagecodecs.numcodecs import register_codecs  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(
            f"{path} has data/{name} compressed with a codec that is not installed, such as UMI's JPEG XL: run "
            "`pip install 'pixio-robot[imagecodecs]'` and convert again."
        ) from None
    register_codecs(verbose=False)


def _check_arrays(path: Path, arrays: Mapping[str, zarr.Array], sources: Sources) -> None:
    for source in sources.values():
        for name, shape in source.parts:
            if name not in arrays or arrays[name].shape[1:] != shape:
                raise UserError(
                    f"{path} is damaged or incomplete: data/{name} of {shape} a step is missing; get it anew from "
                    "where it came from."
                )


def _action_names(path: Path, arrays: Mapping[str, Feature]) -> list[str]:
    for name in ("action", "actions"):
        if name in arrays:
            return [name]
    robots = sorted({name.partition("_")[0] for name in arrays if name.startswith("robot")})
    names = [f"{robot}_{part}" for robot in robots for part in _UMI_ACTION if f"{robot}_{part}" in arrays]
    if not names:
        raise UserError(f"{path} has no action, only {', '.join(sorted(arrays))}: add an array data/action.")
    return names


def _episodes_of(path: Path, array: zarr.Array | None, ends: np.ndarray) -> list[np.ndarray]:
    if array is None or array.dtype.kind != "f" or array.ndim > 2:
        return []
    with explains_unreadable(path, f"data/{_TIMESTAMP}"):
        timestamps = np.asarray(array[: ends[-1]], np.float64).ravel()
    return np.split(timestamps, ends[:-1])


def _rate(path: Path, timestamps: list[np.ndarray], fps: int | None) -> int:
    """Return the one control rate, in Hz, that all steps keep."""
    periods = [np.median(np.diff(episode)) for episode in timestamps if len(episode) > 1]
    rates = np.array([1 / period for period in periods if period > 0])
    if len(rates) == 0 and fps is None:
        raise UserError(f"{path} does not say its control rate: add fps=… in Hz (PushT's is 10).")
    rate = fps or max(1, round(float(np.median(rates))))
    for number, episode in enumerate(timestamps):
        fault = clock_fault(episode, rate)
        if fault is not None and fault.kind == "rate" and len(rates):
            raise UserError(
                f"{path} has mixed frame rates, from {rates.min():.4g} to {rates.max():.4g} Hz by its timestamps, but a store "
                f"has one (here {rate} Hz): convert the episodes of each rate on their own."
            )
        if fault is not None:
            raise UserError(
                f"{path} has steps that are not evenly {1 / rate:.4g} s apart: timestamp of episode {number} {fault.sentence}; "
                f"resample it to {rate} Hz, or remove data/timestamp."
            )
    return rate


def _read_episodes(
    path: Path,
    arrays: Mapping[str, zarr.Array],
    bounds: list[tuple[int, int]],
    sources: Sources,
    record: Record,
) -> Iterator[Episode]:
    file_task = path.name.removesuffix(".zip").removesuffix(".zarr")
    for index, (start, end) in enumerate(bounds):

        def read(name: str, start: int = start, end: int = end) -> np.ndarray:
            return _read(path, arrays, name, start, end)

        data = join(path, sources, index, read)
        yield Episode(data, record.seeds[index], record.success[index], record.tasks[index] or file_task)


def _read(path: Path, arrays: Mapping[str, zarr.Array], name: str, start: int, end: int) -> np.ndarray:
    with explains_unreadable(path, f"data/{name}, steps {start} to {end - 1},"):
        return np.asarray(arrays[name][start:end])


def _beyond(arrays: Mapping[str, zarr.Array], n_steps: int, others: list[str]) -> list[str]:
    """Say which steps belong to no episode, and which arrays hold no numbers."""
    longer = [f"{name} ({array.shape[0] - n_steps})" for name, array in arrays.items() if array.shape[0] > n_steps]
    words = [f"steps behind the last episode of {', '.join(longer)}"] if longer else []
    return words + others
