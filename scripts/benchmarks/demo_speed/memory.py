"""Resident memory of a process that draws random windows from a store, whatever the size of the store."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console

from pixio_robot.common.progress import progress_bar
from pixio_robot.demos.store.layout import Feature
from pixio_robot.demos.store.store import DemoStore
from pixio_robot.demos.windows.windows import WindowDataset

_FRAME = (128, 128, 3)
_FEATURES = {
    "observation.images.front": Feature(_FRAME, "uint8"),
    "observation.images.wrist": Feature(_FRAME, "uint8"),
    "observation.state": Feature((9,), "float32"),
    "action": Feature((7,), "float32"),
}
_STEPS = 341  # of an episode: what fills a file, so that no append writes one twice


def measure_memory(
    folder: Path, *, megabytes: list[int], n_obs_steps: int, action_horizon: int, batches: int, console: Console
) -> dict[str, Any]:
    """Measure the resident memory of a fresh process that loads random windows from stores of several sizes.

    Args:
        folder: Where the stores are made; each is deleted when it was measured.
        megabytes: Sizes of the stores on disk, in 10⁶ bytes.
        n_obs_steps: Image frames and states of a window.
        action_horizon: Actions of a window.
        batches: Batches of 32 windows that are loaded.
        console: Where progress is shown.

    Returns:
        For each store its bytes and the process's most resident bytes, and how much more the last takes than the first.
    """
    results = []
    for size in megabytes:
        path = folder / f"incompressible_{size}_MB.zarr"
        shutil.rmtree(path, ignore_errors=True)
        try:
            _make_store(path, size * 10**6, console)
            arguments = [str(path), str(n_obs_steps), str(action_horizon), str(batches)]
            done = subprocess.run(
                [sys.executable, "-m", __name__, *arguments], check=True, capture_output=True, text=True
            )
            stored = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            results.append({"store_bytes": stored, "resident_bytes": int(done.stdout)})
            console.print(f"{stored / 1e6:,.0f} MB on disk: {int(done.stdout) / 1e6:.1f} MB resident", highlight=False)
        finally:
            shutil.rmtree(path, ignore_errors=True)
    growth = results[-1]["resident_bytes"] / results[0]["resident_bytes"] - 1
    return {"stores": results, "growth": growth, "batches": batches}


def resident_memory(path: Path, n_obs_steps: int, action_horizon: int, batches: int) -> int:
    """Return the most bytes that this process had resident while it loaded random windows."""
    windows = WindowDataset(DemoStore.open(path), action_horizon, n_obs_steps)
    generator = np.random.default_rng(0)
    process, most = psutil.Process(), 0
    for _ in range(batches):
        windows.batch(generator.integers(0, len(windows), 32))
        most = max(most, process.memory_info().rss)
    return most


def _make_store(path: Path, size: int, console: Console) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    n_episodes = max(1, round(size / (2 * _STEPS * np.prod(_FRAME))))
    episode = {
        key: generator.integers(0, 256, (_STEPS, *feature.shape), np.uint8)
        if feature.is_image
        else generator.normal(size=(_STEPS, *feature.shape)).astype(np.float32)
        for key, feature in _FEATURES.items()
    }
    store = DemoStore.create(path, _FEATURES, {"fps": 20})
    with progress_bar(f"making {size / 1e6:,.0f} MB", n_episodes, console) as advance:
        for _ in range(n_episodes):
            store.append_episode(episode, seed=None, success=None, task="none")
            advance()
    store.close()


if __name__ == "__main__":
    print(resident_memory(Path(sys.argv[1]), *map(int, sys.argv[2:])))
