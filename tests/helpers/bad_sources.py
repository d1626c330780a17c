"""Demonstrations that are damaged or of another kind than expected. Each is made in a folder, and its name returned."""

import json
import os
import shutil
from io import StringIO
from pathlib import Path

import h5py
import numpy as np
import zarr
from rich.console import Console

from pixio_robot.demos import DemoStore, Feature

FEATURES = {
    "observation.images.front": Feature((8, 8, 3), "uint8"),
    "observation.state": Feature((2,), "float32"),
    "action": Feature((1,), "float32"),
}


def make_store(path: Path) -> DemoStore:
    store = DemoStore.create(path, FEATURES, {"fps": 5})
    episode = {key: np.ones((3, *feature.shape), feature.dtype) for key, feature in FEATURES.items()}
    store.append_episode(episode, seed=4, success=True, task="reach")
    store.close()
    return store


def without_images(folder: Path) -> str:
    with h5py.File(folder / "low_dim.hdf5", "w") as file:
        file["data/demo_0/actions"] = np.zeros((3, 7))
        file["data/demo_0/obs/object"] = np.zeros((3, 10))
    return "low_dim.hdf5"


def version_2(folder: Path) -> str:
    (folder / "old" / "meta").mkdir(parents=True)
    (folder / "old" / "meta" / "info.json").write_text(json.dumps({"codebase_version": "v2.1"}))
    return "old"


def truncated_chunk(folder: Path) -> str:
    store = make_store(folder / "cut.zarr")
    chunk = store.path / "data/observation.images.front/c/0/0/0/0"
    os.truncate(chunk, chunk.stat().st_size // 2)
    return "cut.zarr"


def missing_array(folder: Path) -> str:
    store = make_store(folder / "lacking.zarr")
    (store.path / "data/action/zarr.json").unlink()
    return "lacking.zarr"


def mixed_rates(folder: Path) -> str:
    root = zarr.open_group(str(folder / "mixed.zarr"), mode="w", zarr_format=2)
    arrays = {
        "img": np.zeros((8, 8, 8, 3), np.uint8),
        "agent_pos": np.zeros((8, 2)),
        "action": np.zeros((8, 2)),
        "timestamp": np.array([0, 0.1, 0.2, 0.3, 0, 0.05, 0.1, 0.15]),
    }
    for name, values in arrays.items():
        root.create_array(f"data/{name}", data=values)
    root.create_array("meta/episode_ends", data=np.array([4, 8]))
    return "mixed.zarr"


def unreadable_video(folder: Path) -> str:
    from pixio_robot.demos.formats.lerobot import export_lerobot

    features = FEATURES | {"observation.images.front": Feature((64, 64, 3), "uint8")}
    store = DemoStore.create(folder / "store.zarr", features, {"fps": 5})
    episode = {key: np.ones((3, *feature.shape), feature.dtype) for key, feature in features.items()}
    store.append_episode(episode, seed=4, success=True, task="reach")
    export_lerobot(store, folder / "recorded", "local/recorded", console=Console(file=StringIO()))
    shutil.rmtree(store.path)
    next((folder / "recorded").rglob("*.mp4")).write_bytes(b"no video")
    return "recorded"
