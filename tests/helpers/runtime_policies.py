"""Metadata and policies for tests of the runtime: chunks whose numbers say where they come from."""

import copy
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from pixio_robot.deployment.runtime import Observation

CAMERA = "observation.images.front"
METADATA: dict[str, Any] = {
    "schema": 3,
    "kind": "policy",
    "policy": "toy",
    "cameras": [{"key": CAMERA, "height": 24, "width": 32, "colour_order": "RGB", "frame_sizes": "same_aspect"}],
    "state": {"key": "observation.state", "size": 2, "names": None},
    "action": {
        "size": 2,
        "names": ["x", "gripper"],
        "space": "delta",
        "minimum": [-50.0, -50.0],
        "maximum": [50.0, 50.0],
        "limits_from": "environment",
    },
    "noise": None,
    "tasks": None,
    "observation_horizon": 1,
    "action_horizon": 6,
    "executed_actions": 3,
    "control_rate_hz": 10,
    "normalisation": {},
    "form": "torchscript",
    "precision": "float32",
    "devices": ["cpu"],
    "encoder": {"name": "toy"},
}


def metadata(**changes: Any) -> dict[str, Any]:
    """Return the metadata with some entries changed; `action__space=…` changes an entry of `action`."""
    changed = copy.deepcopy(METADATA)
    for name, value in changes.items():
        *parents, last = name.split("__")
        entry = changed
        for parent in parents:
            entry = entry[parent]
        entry[last] = value
    return changed


def observation(step: int, values: dict[str, Any] | None = None, ages: dict[str, float] | None = None) -> Observation:
    """Return what is seen at a step, 10 of which are a second; the state says the step."""
    seen = {CAMERA: np.full((24, 32, 3), step % 256, np.uint8), "observation.state": np.array([step, 0], np.float32)}
    return Observation({**seen, **(values or {})}, time=step / 10, ages=ages or {})


class Counting:
    """Answers at once: action `place` of chunk `c` is (c + place / 100, chunk's gripper), unless told otherwise."""

    def __init__(self, described: dict[str, Any], answer: Callable[[int], np.ndarray] | None = None) -> None:
        self.metadata = described
        self.seen: list[dict[str, np.ndarray]] = []
        self.seeds: list[int] = []
        self._answer = answer or self.chunk

    @staticmethod
    def chunk(number: int) -> np.ndarray:
        return np.array([[number + place / 100, 7] for place in range(6)], dtype=np.float32)

    def predict(self, stacked: dict[str, np.ndarray], chunk: int, seed: int = 0) -> np.ndarray:
        self.seen.append(stacked)
        self.seeds.append(seed)
        return self._answer(chunk)


class Gated(Counting):
    """Answers when the gate is opened, once for each opening."""

    def __init__(self, described: dict[str, Any]) -> None:
        super().__init__(described)
        self.begun = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)

    def predict(self, stacked: dict[str, np.ndarray], chunk: int, seed: int = 0) -> np.ndarray:
        actions = super().predict(stacked, chunk, seed)
        self.begun.release()
        assert self.gate.acquire(timeout=60)
        return actions
