"""Adroit's public experts as demonstrators: small networks, whose weights the user has as plain arrays.

Source: A. Rajeswaran et al. (2018), "Learning Complex Dexterous Manipulation with Deep Reinforcement Learning and
Demonstrations", arXiv 1709.10087, and the policies published with it.
"""

import functools
import zipfile
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

_LAYERS = 3
_SHIFTS = ("in_shift", "in_scale", "out_shift", "out_scale")


class AdroitExpert:
    """The mean action of a tanh network that reads the full state: it makes the same episode of the same reset.

    Args:
        task: Task of `AdroitEnv`.
        folder: Holds `<task>.npz`.

    Raises:
        ValueError: The file is missing, or its arrays are not a network's.
    """

    def __init__(self, task: str, folder: Path) -> None:
        self._arrays = _load(folder / f"{task}.npz")

    def reset(self, env: gymnasium.Env) -> None:
        """Prepare for an episode: nothing is remembered."""

    def act(self, observation: dict[str, Any], info: dict[str, Any]) -> np.ndarray:
        """Return the mean action within the joints' ranges, float32 (A,)."""
        arrays = self._arrays
        values = (info["full_state"] - arrays["in_shift"]) / (arrays["in_scale"] + 1e-8)
        for layer in range(_LAYERS):
            values = arrays[f"weight{layer}"] @ values + arrays[f"bias{layer}"]
            if layer < _LAYERS - 1:
                values = np.tanh(values)
        return np.clip(values * arrays["out_scale"] + arrays["out_shift"], -1.0, 1.0).astype(np.float32)


@functools.cache
def _load(path: Path) -> dict[str, np.ndarray]:
    names = [f"{kind}{layer}" for layer in range(_LAYERS) for kind in ("weight", "bias")] + list(_SHIFTS)
    wanted = f"expected the arrays {', '.join(names)} of a network with {_LAYERS} layers"
    if not path.is_file():
        raise ValueError(f"there is no expert {path}: {wanted}; name the folder that has it")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name], np.float64) for name in names}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no expert of Adroit ({str(error).strip()}): {wanted}") from error
    sizes = [arrays["in_shift"].size, *(arrays[f"bias{layer}"].size for layer in range(_LAYERS))]
    shapes = [(sizes[layer + 1], sizes[layer]) for layer in range(_LAYERS)]
    if [arrays[f"weight{layer}"].shape for layer in range(_LAYERS)] != shapes or not all(
        np.isfinite(array).all() for array in arrays.values()
    ):
        raise ValueError(
            f"{path} is no expert of Adroit (its layers do not fit each other, or are not finite): {wanted}"
        )
    return arrays
