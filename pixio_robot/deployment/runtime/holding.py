"""Holding: a robot stands still because no action can be given. What that means in each action space.

An action in a *delta* space is a motion from where the robot is: zero stands still, while a gripper's command is no
motion but a state, and stays what it was. An action in an *absolute* space is a place: the last one stays. In a space
that the metadata do not name, nothing is sent: the robot's own controller keeps its last target.

Shape letter: A action size.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import numpy as np


class HoldReason(StrEnum):
    """Why a robot is told to stand still."""

    WAITING = "waiting for the first chunk"
    STALE_CAMERA = "stale camera"
    BAD_OBSERVATION = "bad observation"
    LATE_INFERENCE = "late inference"
    FAILED_INFERENCE = "failed inference"
    BAD_ACTION = "bad action"


class NoActionError(Exception):
    """Raised inside the runtime where no action can be given; the message is for the log."""

    def __init__(self, reason: HoldReason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


def hold_action(described: Mapping[str, Any], last: np.ndarray | None) -> np.ndarray | None:
    """Return the action (A,) that holds, or None to send nothing.

    Args:
        described: `action` in an artifact's metadata.
        last: The action (A,) sent last; None before the first.
    """
    space, names = str(described["space"] or "").lower(), described["names"] or [""] * described["size"]
    is_delta = "delta" in space
    is_absolute = not is_delta and ("absolute" in space or "position" in space)
    keeps = np.array([is_absolute or "gripper" in name.lower() for name in names])
    if not (is_delta or is_absolute) or (last is None and keeps.any()):
        return None
    neutral = np.clip(0.0, described["minimum"], described["maximum"])
    return np.where(keeps, neutral if last is None else last, neutral).astype(np.float32)
