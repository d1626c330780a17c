"""What a robot observes, the check of it against an artifact's metadata, and the history that a policy reads.

Shape letters: H and W image height and width, S state size, O observation steps.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pixio_robot.common.errors import UserError
from pixio_robot.deployment.artifact.metadata import check_size

Arrays = dict[str, np.ndarray]
TASK = "task"
"""Key of a task's number, int64 (1,), for an artifact that does several."""


@dataclass(frozen=True)
class CameraSource:
    """What a robot's camera delivers, as far as its owner knows."""

    height: int
    """Pixels."""
    width: int
    """Pixels."""
    colour_order: str = "RGB"
    """`RGB`, or `BGR` as OpenCV reads frames."""


@dataclass(frozen=True)
class Observation:
    """One look at the robot.

    Attributes:
        values: Frames uint8 (H, W, 3) by camera key, and `observation.state` float32 (S,) in raw units.
        time: When, in seconds of the robot's own time (simulated time for a simulated robot); chunks are stitched by it.
        ages: Seconds since each camera took its frame, by camera key, as far as the robot knows.
    """

    values: Mapping[str, np.ndarray]
    time: float
    ages: Mapping[str, float] = field(default_factory=dict)


class NotReadError(Exception):
    """Raised where a robot could not be read this time; the message says why."""


def observed_keys(metadata: Mapping[str, Any]) -> list[str]:
    """Return the keys that an artifact reads: cameras, then the state if there is one."""
    keys = [camera["key"] for camera in metadata["cameras"]]
    return keys if metadata["state"] is None else [*keys, metadata["state"]["key"]]


def check_observation(metadata: Mapping[str, Any], values: Mapping[str, object]) -> None:
    """Check one observation.

    Args:
        metadata: Of the artifact.
        values: By key; others than the artifact reads may be there.

    Raises:
        UserError: A camera is missing, a frame is not uint8 (H, W, 3) or has another aspect ratio, or the state is not
            float32 of the artifact's length or not finite.
    """
    for camera in metadata["cameras"]:
        key = camera["key"]
        frame = values.get(key)
        if frame is None:
            offered = ", ".join(sorted(values)) or "nothing"
            raise UserError(f"The artifact reads {key}, but the observation has {offered}: connect that camera.")
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise UserError(
                f"{key} brings {_kind(frame)}, but the artifact reads uint8 frames (height, width, 3) in "
                f"{camera['colour_order']}: give frames as the camera takes them."
            )
        check_size(camera, *frame.shape[:2])
    described = metadata["state"]
    if described is None:
        return
    state, shape = values.get(described["key"]), (described["size"],)
    if not isinstance(state, np.ndarray) or state.dtype != np.float32 or state.shape != shape:
        raise UserError(
            f"{described['key']} brings {_kind(state)}, but the artifact reads float32 {shape}: give the state it was "
            "trained on."
        )
    if not np.isfinite(state).all():
        raise UserError(f"{described['key']} is not finite ({state.tolist()}): look at the robot's sensors.")


def check_stacked(metadata: Mapping[str, Any], stacked: Mapping[str, object]) -> None:
    """Check what `History.stacked` gives, after it came from somewhere else.

    Raises:
        UserError: As for `check_observation`; keys are missing or too many, or the history has another length.
    """
    horizon, wanted, tasks = metadata["observation_horizon"], observed_keys(metadata), metadata["tasks"]
    if tasks is not None:
        task = stacked.get(TASK)
        if (
            not isinstance(task, np.ndarray)
            or task.dtype != np.int64
            or task.shape != (1,)
            or task[0] not in range(len(tasks))
        ):
            raise UserError(f"task brings {_kind(task)}, but the artifact reads int64 (1,) below {len(tasks)}.")
        stacked = {key: value for key, value in stacked.items() if key != TASK}
    if stacked.keys() != set(wanted):
        raise UserError(f"The observation has {sorted(stacked)}, but the artifact reads {sorted(wanted)}.")
    leading = (1,) if horizon == 1 else (1, horizon)
    for key, array in stacked.items():
        if not isinstance(array, np.ndarray) or array.shape[: len(leading)] != leading:
            raise UserError(f"{key} brings {_kind(array)}, but the artifact reads {horizon} step(s) of a batch of 1.")
    for step in range(horizon):
        place = (0,) if horizon == 1 else (0, step)
        check_observation(metadata, {key: np.asarray(array)[place] for key, array in stacked.items()})


def task_number(metadata: Mapping[str, Any], task: str | None) -> int | None:
    """Return the number by which an artifact is told a task; None for an artifact of one task.

    Raises:
        UserError: The artifact does several tasks, and this is none of them.
    """
    tasks: list[str] | None = metadata["tasks"]
    if tasks is None:
        return None
    if task not in tasks:
        asked = "needs to be told which" if task is None else f"{task!r} is none of them"
        raise UserError(f"The artifact does {len(tasks)} tasks, and {asked}: set task to one of {'; '.join(tasks)}.")
    return tasks.index(task)


class History:
    """The last O observations; the first of an episode stands for those before it, as in training."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self._horizon: int = metadata["observation_horizon"]
        self._keys = observed_keys(metadata)
        self.reset()

    def reset(self, task: int | None = None) -> None:
        """Begin an episode, of a task as `task_number` has it."""
        self._task: Arrays = {} if task is None else {TASK: np.array([task])}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self.forget()

    def forget(self) -> None:
        """Let the next observation stand for those before it."""
        self._steps: deque[Mapping[str, np.ndarray]] = deque(maxlen=self._horizon)

    def append(self, values: Mapping[str, np.ndarray]) -> None:
        """Add the newest observation.

        Raises:
            UserError: A frame has another size than at the beginning of the episode.
        """
        for key in self._keys:
            before = self._shapes.setdefault(key, values[key].shape)
            if before != values[key].shape:
                raise UserError(f"{key} changed from {before} to {values[key].shape}: keep a camera's size.")
        self._steps.extend([values] * (1 if self._steps else self._horizon))

    def stacked(self) -> Arrays:
        """Return what the artifact is called with: (1, …), or (1, O, …) where O > 1."""
        if self._horizon == 1:
            return {key: self._steps[0][key][None] for key in self._keys} | self._task
        return {key: np.stack([step[key] for step in self._steps])[None] for key in self._keys} | self._task


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return f"a {type(value).__name__}"
