"""What it means that a robot holds still, in each action space.

An action in a *delta* space is a motion from where the robot is: zero stands still, while a gripper's command is no
motion but a state, and stays what it was. An action in an *absolute* space is a place: the last one stays. In a space
that the metadata do not name, nothing is sent: the robot's own controller keeps its last target.

Shape letter: A action size.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import numpy as np

__all__ = ["Held", "HoldReason", "Holding"]


class HoldReason(StrEnum):
    """Why a robot is told to stand still."""

    WAITING = "waiting for the first chunk"
    STALE_CAMERA = "stale camera"
    BAD_OBSERVATION = "bad observation"
    LATE_INFERENCE = "late inference"
    FAILED_INFERENCE = "failed inference"
    BAD_ACTION = "bad action"


class Held(Exception):  # noqa: N818 (no error: a decision)
    """Raised inside the runtime where no action can be given; the message is for the log."""

    def __init__(self, reason: HoldReason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class Holding:
    """The hold action of a robot, from its artifact's metadata."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        action = metadata["action"]
        space = str(action["space"] or "").lower()
        self._size: int = action["size"]
        self._is_delta = "delta" in space
        self._is_absolute = not self._is_delta and ("absolute" in space or "position" in space)
        names = action["names"]
        self._keeps = np.array([self._is_absolute or "gripper" in name.lower() for name in names or []], dtype=bool)
        if not names:
            self._keeps = np.full(self._size, self._is_absolute)
        self._neutral = np.clip(0.0, action["minimum"], action["maximum"]).astype(np.float32)

    def action(self, last: np.ndarray | None) -> np.ndarray | None:
        """Return the action (A,) that holds, or None to send nothing.

        Args:
            last: The action (A,) sent last; None before the first.
        """
        if not (self._is_delta or self._is_absolute) or (last is None and self._keeps.any()):
            return None
        if last is None:
            return self._neutral.copy()
        return np.where(self._keeps, last, self._neutral).astype(np.float32)
