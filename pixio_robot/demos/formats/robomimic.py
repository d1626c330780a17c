"""Makes demonstration stores of robomimic's HDF5 files.

Layout, as robomimic's documentation has it (https://robomimic.github.io/docs/datasets/overview.html)::

    data                        attributes: total (number of steps), env_args (JSON)
    data/demo_<n>               attributes: num_samples
    data/demo_<n>/actions       (steps, actions)
    data/demo_<n>/rewards       (steps,)
    data/demo_<n>/dones         (steps,)
    data/demo_<n>/obs/<name>    (steps, ...); cameras are <camera>_image, uint8 (steps, height, width, 3)
    mask/<filter key>           names of demonstrations

Simulator states, models and ``next_obs`` have no place in a store and are left out.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from rich.console import Console

from pixio_robot.common.errors import UserError, printable
from pixio_robot.demos.formats.named_arrays import Sources, choose_sources, join
from pixio_robot.demos.formats.robomimic_export import ACTIONS, EXTRA, place_of
from pixio_robot.demos.formats.transfer import Episode, Record, explains_unreadable, write_store
from pixio_robot.demos.store.codecs import LOSSLESS
from pixio_robot.demos.store.layout import Feature
from pixio_robot.demos.store.store import DemoStore

# gzip, the strongest of HDF5's own filters, packs zeros a thousand times.
_MOST_PACKED, _SMALL_BYTES = 1100, 1 << 28


def import_robomimic(
    path: str | Path,
    store_path: str | Path,
    *,
    fps: int | None = None,
    image_size: int | None = None,
    codec: str = LOSSLESS,
    console: Console | None = None,
) -> DemoStore:
    """Make a store of a robomimic file; `pixio_robot.demos.formats.named_arrays` says which observations become what.

    The file's ``env_args`` and filter keys become attributes. Success is known where all rewards are 0 or 1 and some
    are 1, as robomimic's are: of an episode with a 1. The task is the language instruction, where there is one, or
    the environment's name.

    Args:
        path: The HDF5 file.
        store_path: Folder to make; complete or not there.
        fps: Control rate in Hz, for a file whose ``env_args`` have no ``control_freq``.
        image_size: Height and width to resize frames to, in pixels; None keeps theirs.
        codec: How frames are kept, see `DemoStore.create`.
        console: Where to show progress: standard error by default.

    Raises:
        UserError: The file is no robomimic dataset with images, is damaged, or its rate is unknown or another; there
            is something at `store_path`, or the disk is full.
    """
    path, store_path = Path(path), Path(store_path)
    with explains_unreadable(path, "the file"):
        file = h5py.File(path, "r")
    with file:
        with explains_unreadable(path, "its structure"):
            _check_self_contained(file, path)
            demos = _demonstrations(path, file)
            about = _group(file, "data")
            extra, env_args = _json_attribute(about, EXTRA), _json_attribute(about, "env_args")
            empty = [demo for demo in demos if not _length(path, demo)]
            demos = [demo for demo in demos if demo not in empty]
            if not demos:
                raise UserError(
                    f"{path} has {len(empty)} demonstrations, but none of them has a step: give another file."
                )
            arrays = _arrays(demos[0])
            masks, unknown = _masks(file, demos)
        record = Record.from_json(extra, len(demos))

        def read(name: str) -> Iterator[np.ndarray]:
            return (_read(path, demo, name) for demo in demos)

        sources, attributes, given_up = choose_sources(path, extra, arrays, lambda: [ACTIONS], read)
        if not extra:
            attributes |= {"env_args": env_args, "filter_keys": masks}
            given_up += _given_up(path, demos, empty, unknown)
        _check_alike(path, demos, sources)
        success = record.success
        if all(value is None for value in success):
            success, why = _success_by_reward(path, demos)
            given_up += [] if extra else why
        record = replace(record, success=success)
        attributes = attributes | {"fps": _rate(path, env_args, fps), "source": f"robomimic {path.name}"}
        sources = {key: source.resized(image_size) for key, source in sources.items()}
        features = {key: source.feature for key, source in sources.items()}
        episodes = _read_episodes(path, demos, sources, record, _task(about, env_args, path))
        return write_store(store_path, features, attributes, episodes, len(demos), codec, console, given_up)


def _check_self_contained(file: h5py.File, path: Path) -> None:
    """Check that a file names no other one, by external links, storage or virtual datasets, and is no bomb."""
    waiting: list[h5py.Group] = [file]
    seen: set[object] = set()
    while waiting:
        group = waiting.pop()
        for name in group:
            link = group.get(name, getlink=True)
            place = printable(f"{group.name.rstrip('/')}/{name}")  # pyright: ignore[reportOptionalMemberAccess]
            if isinstance(link, h5py.ExternalLink):
                raise UserError(
                    f"{path} was not read: {place} is a link to {printable(link.filename)}, and only what is inside a file "
                    f"is followed. Copy it in."
                )
            if not isinstance(link, h5py.HardLink):
                continue  # to another place in the file, which is looked at there
            item = group[name]
            if isinstance(item, h5py.Group) and item.id.__hash__() not in seen:
                seen.add(item.id.__hash__())
                waiting.append(item)
            elif isinstance(item, h5py.Dataset):
                _check_dataset(item, place, path)


def _check_dataset(dataset: h5py.Dataset, place: str, path: Path) -> None:
    # Virtual within the file, as the next observations of our own exports are: the numbers lie in "this file".
    elsewhere = dataset.is_virtual and any(source.file_name != "." for source in dataset.virtual_sources())
    if elsewhere or dataset.external:
        raise UserError(f"{path} was not read: the numbers of {place} lie in another file. Copy them in.")
    held = path.stat().st_size if dataset.is_virtual else dataset.id.get_storage_size()
    if dataset.shape is not None and dataset.nbytes > max(_SMALL_BYTES, _MOST_PACKED * held):
        raise UserError(f"{path} was not read: {place} claims {dataset.nbytes >> 20} MiB and holds {held} bytes.")


def _demonstrations(path: Path, file: h5py.File) -> list[h5py.Group]:
    """Return the groups of all demonstrations, by number."""
    data = file.get("data")
    found = [item for item in data.items() if isinstance(item[1], h5py.Group)] if isinstance(data, h5py.Group) else []
    demos = {name: group for name, group in found if ACTIONS in group}
    if not demos:
        raise UserError(
            f"{path} is an HDF5 file but no robomimic dataset: it has no data/demo_0/actions; give one that robomimic "
            "reads."
        )
    return [demos[name] for name in sorted(demos, key=_number_of)]


def _group(parent: h5py.Group, name: str) -> h5py.Group:
    group = parent[name]
    assert isinstance(group, h5py.Group)
    return group


def _values(parent: h5py.Group, name: str) -> np.ndarray:
    array = parent[name]
    if not isinstance(array, h5py.Dataset) or not array.shape:
        raise ValueError("it is no array")
    return array[:]


def _number_of(name: str) -> tuple[int, str]:
    number = name.rpartition("_")[2]
    return (int(number) if number.isdigit() else -1, name)


def _arrays(demo: h5py.Group) -> dict[str, Feature]:
    """Return what a step of each array holds, by the names of observations, with actions among them."""
    found = {ACTIONS: demo[ACTIONS]} | dict(_group(demo, "obs").items() if "obs" in demo else ())
    return {
        name: Feature(tuple(array.shape[1:]), array.dtype.name)
        for name, array in found.items()
        if isinstance(array, h5py.Dataset) and array.ndim > 0 and array.dtype.kind in "fiub"
    }


def _check_alike(path: Path, demos: list[h5py.Group], sources: Sources) -> None:
    """Look that all demonstrations have the arrays that are needed, of the same shapes, and as many steps of each."""
    parts = [part for source in sources.values() for part in source.parts]
    for demo in demos:
        with explains_unreadable(path, demo.name or "data"):
            found = {name: demo.get(place_of(name)) for name, _ in parts}
        shapes = {name: array.shape if isinstance(array, h5py.Dataset) else None for name, array in found.items()}
        n_steps = (shapes.get(ACTIONS) or next(iter(shapes.values())) or (0,))[0]
        for name, shape in parts:
            has = shapes[name]
            if has is None or has[1:] != shape or has[0] != n_steps:
                raise UserError(
                    f"{path} is damaged or incomplete: {demo.name}/{place_of(name)} "
                    + ("is missing" if has is None else f"has the shape {has}")
                    + f", but the first demonstration has {shape} a step, and all arrays of one as many steps; get it "
                    "anew from where it came from."
                )


def _masks(file: h5py.File, demos: list[h5py.Group]) -> tuple[dict[str, list[int]], list[str]]:
    """Return robomimic's filter keys, each as indices of episodes, and what they name that is not there."""
    mask = file.get("mask")
    if not isinstance(mask, h5py.Group):
        return {}, []
    indices = {str(demo.name).rpartition("/")[2]: index for index, demo in enumerate(demos)}
    lists = {key: array for key, array in mask.items() if isinstance(array, h5py.Dataset) and array.shape}
    names = {key: [_text(demo) for demo in np.ravel(array[:])] for key, array in lists.items()}
    unknown = sorted({demo for of_key in names.values() for demo in of_key if demo not in indices})
    unknown += [f"mask/{key} (no list)" for key in mask if key not in lists]
    return {key: [indices[demo] for demo in of_key if demo in indices] for key, of_key in names.items()}, unknown


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _given_up(path: Path, demos: list[h5py.Group], empty: list[h5py.Group], unknown: list[str]) -> list[str]:
    """Say what of a file of others has no place in a store, but for the observations."""
    there = sorted({str(name) for demo in demos for name in demo} - {ACTIONS, "obs", "rewards", "dones"})
    words = [f"{', '.join(there)} of every demonstration"] if there else []
    observed = sorted(
        {str(name) for demo in demos if "obs" in demo for name in _group(demo, "obs")} - set(_arrays(demos[0]))
    )
    if observed:
        words.append(f"{', '.join(observed)} of obs, which the first demonstration has not as numbers of every step")
    counted = [demo for demo in demos if demo.attrs.get("num_samples", _length(path, demo)) != _length(path, demo)]
    if counted:
        words.append(f"num_samples of {', '.join(map(_name, counted[:20]))}: these have another number of steps")
    if empty:
        words.append(f"{', '.join(_name(demo) for demo in empty)}, of no steps")
    if unknown:
        words.append(f"{', '.join(unknown)} of the filter keys, which are not there")
    if [_number_of(_name(demo))[0] for demo in demos] != list(range(len(demos))):
        numbers = [_name(demo).rpartition("_")[2] for demo in demos[:20]]
        words.append(f"the numbers of demonstrations, {', '.join(numbers)}: counted from 0 instead")
    return words


def _name(demo: h5py.Group) -> str:
    return str(demo.name).rpartition("/")[2]


def _length(path: Path, demo: h5py.Group) -> int:
    actions = demo[ACTIONS]
    if not isinstance(actions, h5py.Dataset) or not actions.shape:
        raise UserError(
            f"{path} has {demo.name}/{ACTIONS} that is no array of steps: give actions of (steps, actions)."
        )
    return len(actions)


def _json_attribute(group: h5py.Group, name: str) -> dict[str, Any]:
    """Read a JSON object from an attribute; one that is not there or not JSON is empty."""
    try:
        value = json.loads(group.attrs[name])  # pyright: ignore[reportArgumentType] (a TypeError if not text)
    except (KeyError, TypeError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _rate(path: Path, env_args: Mapping[str, Any], fps: int | None) -> int:
    kwargs = env_args.get("env_kwargs")
    recorded = kwargs.get("control_freq") if isinstance(kwargs, dict) else None
    if recorded is None:
        if fps is None:
            raise UserError(f"{path} does not say its control rate (control_freq in env_args): add fps=… in Hz.")
        return fps
    try:
        rate = math.nan if isinstance(recorded, bool) else float(recorded)
    except (TypeError, ValueError):
        rate = math.nan
    if not 0 < rate < math.inf:
        raise UserError(
            f"{path} gives its control rate (control_freq in env_args) as {recorded!r}, which is no rate in Hz."
        )
    if fps not in (None, rate):
        raise UserError(f"{path} was recorded at {rate:g} Hz, not {fps} Hz: leave fps out.")
    if rate != int(rate):
        raise UserError(
            f"{path} was recorded at {rate:g} Hz, but a store has a whole number of steps a second: resample it."
        )
    return int(rate)


def _task(data: h5py.Group, env_args: Mapping[str, Any], path: Path) -> str:
    language = _json_attribute(data, "problem_info").get("language_instruction")  # LIBERO's place for it
    return str(language or env_args.get("env_name") or path.stem)


def _read_episodes(
    path: Path, demos: list[h5py.Group], sources: Sources, record: Record, file_task: str
) -> Iterator[Episode]:
    for index, demo in enumerate(demos):
        data = join(path, sources, index, lambda name, demo=demo: _read(path, demo, name))
        language = _json_attribute(demo, "ep_meta").get("lang")  # RoboCasa's place for it
        task = record.tasks[index] or language or file_task
        yield Episode(data, record.seeds[index], record.success[index], str(task))


def _read(path: Path, demo: h5py.Group, name: str) -> np.ndarray:
    with explains_unreadable(path, f"{demo.name}/{place_of(name)}"):
        return _values(demo, place_of(name))


def _success_by_reward(path: Path, demos: list[h5py.Group]) -> tuple[list[bool | None], list[str]]:
    """Return which episodes succeeded, as far as rewards say it, and why they do not."""
    unknown: list[bool | None] = [None] * len(demos)
    if not all("rewards" in demo for demo in demos):
        return unknown, ["success, of which there are no rewards"]
    with explains_unreadable(path, "rewards"):
        values = [_values(demo, "rewards") for demo in demos]
    if any(len(of_demo) != _length(path, demo) for of_demo, demo in zip(values, demos, strict=True)):
        return unknown, ["rewards, which are not one for every step and so do not say which episodes succeeded"]
    rewards = [np.unique(of_demo) for of_demo in values]
    if not np.isin(np.concatenate(rewards), (0, 1)).all():
        return unknown, ["rewards, which are not 0 or 1 and so do not say which episodes succeeded"]
    if not any(1 in values for values in rewards):
        return unknown, ["rewards, which are 0 everywhere and so do not say which episodes succeeded"]
    return [1 in values for values in rewards], []
