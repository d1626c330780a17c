"""Converts between a demonstration store and robomimic's HDF5 files.

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
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.common.progress import progress_bar
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
    write_store,
)
from pixio_robot.demos.store.codecs import LOSSLESS
from pixio_robot.demos.store.layout import Feature
from pixio_robot.demos.store.store import DemoStore

# What robomimic has no place for: an attribute of `data` that it ignores.
_EXTRA = "pixio_robot"
_ACTIONS = "actions"
# robomimic.envs.env_base.EnvType
_ROBOSUITE, _GYM = 1, 2


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
            demos = _demonstrations(path, file)
            about = _group(file, "data")
            extra, env_args = _json_attribute(about, _EXTRA), _json_attribute(about, "env_args")
            arrays = _arrays(demos[0])
            masks = _masks(file, demos)
        record = Record.from_json(extra, len(demos))
        about_file = {"env_args": env_args, "filter_keys": masks}
        sources, attributes = choose_sources(path, extra, arrays, lambda: [_ACTIONS], about_file)
        _check_alike(path, demos, sources)
        attributes = attributes | {"fps": _rate(path, env_args, fps), "source": f"robomimic {path.name}"}
        sources = {key: source.resized(image_size) for key, source in sources.items()}
        features = {key: source.feature for key, source in sources.items()}
        episodes = _read_episodes(path, demos, sources, record, _task(about, env_args, path))
        return write_store(store_path, features, attributes, episodes, len(demos), codec, console)


def export_robomimic(store: DemoStore, path: str | Path, *, console: Console | None = None) -> None:
    """Write a store as a robomimic HDF5 file.

    ``dones`` is 1 on the last step of each episode and ``rewards`` on that of a successful one. Tasks, seeds, success
    and the store's attributes go to an attribute that robomimic ignores and `import_robomimic` reads.

    Args:
        store: What to write.
        path: The file to make; complete or not there.
        console: Where to show progress: standard error by default.

    Raises:
        UserError: There is something at `path`, the store is empty or damaged, or the disk is full.
    """
    check_not_empty(store)
    sources = sources_of_store(store, _ACTIONS)
    extra = asdict(Record.of_store(store)) | {"arrays": sources_to_json(sources)}
    with new_result(Path(path)) as unfinished, h5py.File(unfinished, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = store.num_steps
        data.attrs["env_args"] = json.dumps(_env_args(store))
        data.attrs[_EXTRA] = json.dumps(extra)
        with progress_bar("episodes", store.num_episodes, console or Console(stderr=True)) as advance:
            for index in range(store.num_episodes):
                demo = data.create_group(f"demo_{index}")
                _write_episode(demo, store.episode(index), sources, bool(store.episode_success[index] == 1))
                advance()
        for name, indices in store.attributes.get("filter_keys", {}).items():
            file[f"mask/{name}"] = np.array([f"demo_{index}" for index in indices], "S")


def _write_episode(demo: h5py.Group, episode: Mapping[str, np.ndarray], sources: Sources, success: bool) -> None:
    n_steps = len(next(iter(episode.values())))
    demo.attrs["num_samples"] = n_steps
    for key, source in sources.items():
        for name, values in split(source, episode[key]).items():
            demo[_place(name)] = values
    is_last = np.arange(n_steps) == n_steps - 1
    demo["rewards"] = (is_last & success).astype(np.float64)
    demo["dones"] = is_last.astype(np.int64)


def _env_args(store: DemoStore) -> dict[str, Any]:
    """Return what robomimic makes its environment from: what it was imported with, or as much as is known."""
    attributes = store.attributes
    env = attributes.get("env", {})
    env_type = _ROBOSUITE if "robosuite" in str(env.get("type")) else _GYM
    name = env.get("task") or env.get("type") or "unknown"
    env_args = attributes.get("env_args") or {"env_name": name, "env_type": env_type, "env_kwargs": {}}
    return env_args | {"env_kwargs": env_args.get("env_kwargs", {}) | {"control_freq": store.fps}}


def _demonstrations(path: Path, file: h5py.File) -> list[h5py.Group]:
    """Return the groups of all demonstrations, by number."""
    data = file.get("data")
    found = [item for item in data.items() if isinstance(item[1], h5py.Group)] if isinstance(data, h5py.Group) else []
    demos = {name: group for name, group in found if _ACTIONS in group}
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
    assert isinstance(array, h5py.Dataset)
    return array[:]


def _number_of(name: str) -> tuple[int, str]:
    number = name.rpartition("_")[2]
    return (int(number) if number.isdigit() else -1, name)


def _arrays(demo: h5py.Group) -> dict[str, Feature]:
    """Return what a step of each array holds, by the names of observations, with actions among them."""
    found = {_ACTIONS: demo[_ACTIONS]} | dict(_group(demo, "obs").items() if "obs" in demo else ())
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
            found = {name: demo.get(_place(name)) for name, _ in parts}
        shapes = {name: array.shape if isinstance(array, h5py.Dataset) else None for name, array in found.items()}
        n_steps = (shapes.get(_ACTIONS) or next(iter(shapes.values())) or (0,))[0]
        for name, shape in parts:
            has = shapes[name]
            if has is None or has[1:] != shape or has[0] != n_steps:
                raise UserError(
                    f"{path} is damaged or incomplete: {demo.name}/{_place(name)} "
                    + ("is missing" if has is None else f"has the shape {has}")
                    + f", but the first demonstration has {shape} a step, and all arrays of one as many steps; get it "
                    "anew from where it came from."
                )


def _place(name: str) -> str:
    return name if name == _ACTIONS else f"obs/{name}"


def _masks(file: h5py.File, demos: list[h5py.Group]) -> dict[str, list[int]]:
    """Return robomimic's filter keys, each as indices of episodes."""
    if "mask" not in file:
        return {}
    indices = {str(demo.name).rpartition("/")[2]: index for index, demo in enumerate(demos)}
    mask = _group(file, "mask")
    names = {key: [bytes(demo).decode() for demo in _values(mask, key)] for key in map(str, mask)}
    return {key: [indices[demo] for demo in of_key if demo in indices] for key, of_key in names.items()}


def _json_attribute(group: h5py.Group, name: str) -> dict[str, Any]:
    """Read a JSON object from an attribute; one that is not there or not JSON is empty."""
    try:
        value = json.loads(group.attrs[name])  # pyright: ignore[reportArgumentType] (a TypeError if not text)
    except (KeyError, TypeError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _rate(path: Path, env_args: Mapping[str, Any], fps: int | None) -> int:
    recorded = env_args.get("env_kwargs", {}).get("control_freq")
    rate = fps if recorded is None else recorded
    if rate is None:
        raise UserError(f"{path} does not say its control rate (control_freq in env_args): add fps=… in Hz.")
    if rate != int(rate) or fps not in (None, rate):
        raise UserError(f"{path} was recorded at {rate} Hz, not {fps or 'a whole number of'} Hz: leave fps out.")
    return int(rate)


def _task(data: h5py.Group, env_args: Mapping[str, Any], path: Path) -> str:
    language = _json_attribute(data, "problem_info").get("language_instruction")  # LIBERO's place for it
    return str(language or env_args.get("env_name") or path.stem)


def _read_episodes(
    path: Path, demos: list[h5py.Group], sources: Sources, record: Record, file_task: str
) -> Iterator[Episode]:
    success = record.success
    if all(value is None for value in success):
        success = _success_by_reward(path, demos)
    for index, demo in enumerate(demos):
        with explains_unreadable(path, demo.name or "data"):
            data = join(path, sources, lambda name, demo=demo: _values(demo, _place(name)))
            language = _json_attribute(demo, "ep_meta").get("lang")  # RoboCasa's place for it
        yield Episode(data, record.seeds[index], success[index], record.tasks[index] or language or file_task)


def _success_by_reward(path: Path, demos: list[h5py.Group]) -> list[bool | None]:
    unknown: list[bool | None] = [None] * len(demos)
    if not all("rewards" in demo for demo in demos):
        return unknown
    with explains_unreadable(path, "rewards"):
        rewards = [np.unique(_values(demo, "rewards")) for demo in demos]
    known = np.isin(np.concatenate(rewards), (0, 1)).all() and any(1 in values for values in rewards)
    return [1 in values for values in rewards] if known else unknown
