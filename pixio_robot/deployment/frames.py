"""Real observations to check an export on."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pixio_robot.demos import DemoStore
from pixio_robot.errors import UserError

_NUM_CHECKED = 8


def check_frames(store_path: str | None) -> Tensor:
    """Return frames of the first camera of a store, uint8 (B, H, W, 3); None takes the newest store there is."""
    if store_path is None:
        found = sorted(Path("outputs/demos").glob("*.zarr"), key=lambda path: path.stat().st_mtime)
        if not found:
            raise UserError(
                "No demonstrations under outputs/demos to check the export on: give some with frames=<DemoStore>, or "
                "make some with scripts/collect_demos.py."
            )
        store_path = str(found[-1])
    store = DemoStore.open(store_path)
    return torch.from_numpy(store.read_steps(store.image_keys[0], _spread(store)))


def check_observations(checkpoint: Path, store_path: str | None) -> dict[str, Tensor]:
    """Return observations for a policy: from the given store, or from the checkpoint's own demonstrations."""
    if store_path is None:
        run_file = checkpoint / "pixio_run.json"
        store_path = json.loads(run_file.read_text())["demonstrations"] if run_file.exists() else None
        if store_path is None or not Path(store_path).exists():
            raise UserError(
                f"The demonstrations that {checkpoint} was trained on are not here: give real observations to check "
                "the export on with frames=<DemoStore>."
            )
    store = DemoStore.open(store_path)
    steps = _spread(store)
    keys = [key for key in store.features if key.startswith("observation.")]
    return {key: torch.from_numpy(store.read_steps(key, steps)) for key in keys}


def _spread(store: DemoStore) -> np.ndarray:
    return np.unique(np.linspace(0, store.num_steps - 1, _NUM_CHECKED).astype(np.int64))
