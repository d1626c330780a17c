"""Writes demonstration stores as robomimic's HDF5 files, in the layout that `pixio_robot.demos.formats.robomimic` reads.

``next_obs`` has the steps of ``obs`` from the second on; the last observation stands for the one behind it, which nobody
recorded.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from rich.console import Console

from pixio_robot.common.progress import progress_bar
from pixio_robot.demos.formats.named_arrays import Sources, sources_of_store, sources_to_json, split
from pixio_robot.demos.formats.transfer import Record, check_not_empty, new_result
from pixio_robot.demos.store.store import DemoStore

EXTRA = "pixio_robot"
"""What robomimic has no place for: an attribute of `data` that it ignores."""
ACTIONS = "actions"
# robomimic.envs.env_base.EnvType
_ROBOSUITE, _GYM = 1, 2


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
    sources = sources_of_store(store, ACTIONS)
    extra = asdict(Record.of_store(store)) | {"arrays": sources_to_json(sources)}
    with new_result(Path(path)) as unfinished, h5py.File(unfinished, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = store.num_steps
        data.attrs["env_args"] = json.dumps(_env_args(store))
        data.attrs[EXTRA] = json.dumps(extra)
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
            demo[place_of(name)] = values
            if name != ACTIONS:
                _shift(demo, name)
    is_last = np.arange(n_steps) == n_steps - 1
    demo["rewards"] = (is_last & success).astype(np.float64)
    demo["dones"] = is_last.astype(np.int64)


def _shift(demo: h5py.Group, name: str) -> None:
    """Give ``next_obs`` the steps of an observation from the second on, in no space of its own; the last stays for its next."""
    values = demo[place_of(name)]
    assert isinstance(values, h5py.Dataset)
    source = h5py.VirtualSource(".", values.name, values.shape)
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    if len(values) > 1:
        layout[:-1] = source[1:]
    layout[-1:] = source[-1:]
    demo.create_virtual_dataset(f"next_obs/{name}", layout)


def _env_args(store: DemoStore) -> dict[str, Any]:
    """Return what robomimic makes its environment from: what it was imported with, or as much as is known."""
    attributes = store.attributes
    env = attributes.get("env", {})
    env_type = _ROBOSUITE if "robosuite" in str(env.get("type")) else _GYM
    name = env.get("task") or env.get("type") or "unknown"
    env_args = {"env_name": name, "type": env_type} | (attributes.get("env_args") or {})
    return env_args | {"env_kwargs": (env_args.get("env_kwargs") or {}) | {"control_freq": store.fps}}


def place_of(name: str) -> str:
    """Return where a demonstration has an array."""
    return name if name == ACTIONS else f"obs/{name}"
