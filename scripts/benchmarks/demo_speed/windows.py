"""Windows of the same episodes from a store, from a memory map and from a LeRobotDataset, in turn in one run."""

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.datasets import LeRobotDataset
from rich.console import Console
from torch.utils.data import BatchSampler, DataLoader, Dataset

from pixio_robot.common.storage.files import atomic_path
from pixio_robot.demos.formats.lerobot import export_lerobot
from pixio_robot.demos.store.store import DemoStore
from pixio_robot.demos.windows.windows import WindowDataset

STORE, MEMORY_MAP, LEROBOT = "store", "memory map", "LeRobotDataset"
_FRAMES_AT_ONCE = 256
_MOST_SAMPLES = 10**6
_WARM_UP_BATCHES = 4


class MappedStore(DemoStore):
    """A store whose frames come from uncompressed files mapped into memory: what no format on a disk is faster than."""

    def __init__(self, store: DemoStore, folder: Path) -> None:
        super().__init__(store.path, store.attributes)
        self._maps = {key: np.load(folder / f"{key}.npy", mmap_mode="r") for key in store.image_keys}

    def read_steps(self, key: str, steps: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return steps of one key in any order, with repeats."""
        return np.take(self._maps[key], steps, axis=0, out=out, mode="clip")  # numpy's other modes copy once more


def measure_windows(
    store: DemoStore,
    folder: Path,
    *,
    n_obs_steps: int,
    action_horizon: int,
    batch_size: int,
    rounds: int,
    seconds: float,
    seed: int,
    console: Console,
) -> dict[str, Any]:
    """Measure the samples per second that one worker process with one thread loads, of each side in turn.

    Args:
        store: The demonstrations.
        folder: Keeps the memory maps and the LeRobotDataset (video) of the same episodes, made where they are not.
        n_obs_steps: Image frames and states of a window.
        action_horizon: Actions of a window.
        batch_size: Windows of a batch.
        rounds: How often each side is measured.
        seconds: How long it is measured each time.
        seed: Decides which windows are drawn.
        console: Where progress is shown.

    Returns:
        Samples per second of each side in each round, and the ratios to the store's.
    """
    sides = {
        STORE: WindowDataset(store, action_horizon, n_obs_steps),
        MEMORY_MAP: WindowDataset(_mapped(store, folder / "maps"), action_horizon, n_obs_steps),
        LEROBOT: _lerobot(store, folder / f"lerobot_{store.fingerprint()}", n_obs_steps, action_horizon, console),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, dataset in sides.items():
            rates[name].append(_rate(dataset, batch_size, seconds, [seed, number]))
        speeds = ", ".join(f"{name} {values[-1]:.0f}/s" for name, values in rates.items())
        console.print(f"round {number + 1} of {rounds}: {speeds}", highlight=False)
    return {
        "store": str(store.path),
        "codec": store.attributes["codec"],
        "steps": store.num_steps,
        "cameras": {key: list(store.features[key].shape) for key in store.image_keys},
        "n_obs_steps": n_obs_steps,
        "action_horizon": action_horizon,
        "batch_size": batch_size,
        "samples_per_second": rates,
        "store_to_lerobot": [ours / theirs for ours, theirs in zip(rates[STORE], rates[LEROBOT])],
        "memory_map_to_store": [mapped / ours for mapped, ours in zip(rates[MEMORY_MAP], rates[STORE])],
        "median_store_to_lerobot": _median_ratio(rates[STORE], rates[LEROBOT]),
        "median_memory_map_to_store": _median_ratio(rates[MEMORY_MAP], rates[STORE]),
    }


def _median_ratio(one: list[float], other: list[float]) -> float:
    return statistics.median(first / second for first, second in zip(one, other))


def _rate(dataset: Dataset[Any], batch_size: int, seconds: float, seed: list[int]) -> float:
    """Return the samples per second of a worker that is alone: those of other sides, which load ahead, have ended."""
    assert hasattr(dataset, "__len__")
    steps = np.random.default_rng(seed).integers(len(dataset), size=_MOST_SAMPLES)  # pyright: ignore[reportArgumentType]
    batches = BatchSampler(steps.tolist(), batch_size, drop_last=True)
    # Each as its users load it: LeRobot's items are collated, our dataset gives whole batches.
    sampling: dict[str, Any] = (
        {"batch_sampler": batches} if isinstance(dataset, LeRobotDataset) else {"batch_size": None, "sampler": batches}
    )
    loaded = iter(DataLoader(dataset, **sampling, num_workers=1, multiprocessing_context="fork"))
    for _ in range(_WARM_UP_BATCHES):
        next(loaded)
    start, n_batches = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        next(loaded)
        n_batches += 1
    return n_batches * batch_size / (time.perf_counter() - start)


def _mapped(store: DemoStore, folder: Path) -> DemoStore:
    folder = folder / store.fingerprint()
    for key in store.image_keys:
        file = folder / f"{key}.npy"
        if not file.exists():
            shape = (store.num_steps, *store.features[key].shape)
            with atomic_path(file) as unfinished:
                frames = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.uint8, shape=shape)
                for start in range(0, store.num_steps, _FRAMES_AT_ONCE):
                    stop = min(start + _FRAMES_AT_ONCE, store.num_steps)
                    frames[start:stop] = store.read(key, start, stop)
    return MappedStore(store, folder)


def _lerobot(store: DemoStore, root: Path, n_obs_steps: int, action_horizon: int, console: Console) -> LeRobotDataset:
    if not root.exists():
        export_lerobot(store, root, f"local/{root.name}", console=console)
    observed = [step / store.fps for step in range(1 - n_obs_steps, 1)]
    deltas = {key: observed for key in store.features if key.startswith("observation.")}
    deltas["action"] = [step / store.fps for step in range(action_horizon)]
    return LeRobotDataset(
        f"local/{root.name}", root, delta_timestamps=deltas, video_backend="pyav", image_transforms=None
    )
