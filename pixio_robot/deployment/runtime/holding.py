"""Holding: a robot stands still because no action can be given. What that means for each number of an action.

A *motion* (a delta, a velocity) is relative to where the robot is: zero stands still. A *place* (an absolute position) is
where the robot shall be: the last one stays. A gripper's command is a state in either space, and stays as a place does.
What a number is, the action space says in words, or else the number's own name as LeRobot writes it (`.pos`, `.vel`). Where
neither does, no hold can be given, and a real robot is not driven.

Shape letter: A action size.
"""

from collections.abc import Sequence
from enum import StrEnum

import numpy as np


class Kind(StrEnum):
    """What a number of an action is."""

    MOTION = "motion"
    PLACE = "place"


class HoldReason(StrEnum):
    """Why a robot is told to stand still."""

    WAITING = "waiting for the first chunk"
    STALE_CAMERA = "stale camera"
    BAD_OBSERVATION = "bad observation"
    LATE_INFERENCE = "late inference"
    FAILED_INFERENCE = "failed inference"
    BAD_ACTION = "bad action"
    NO_COMMAND = "no command in time"
    UNREADABLE = "robot could not be read"
    REFUSED_START = "refused to start"


class NoActionError(Exception):
    """Raised inside the runtime where no action can be given; the message is for the log."""

    def __init__(self, reason: HoldReason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


def kind_of(words: str) -> Kind | None:
    """Return what the words for an action space mean; None where they say nothing of it."""
    said = words.lower()
    if "delta" in said or "velocit" in said or "relative" in said:
        return Kind.MOTION
    return Kind.PLACE if "absolute" in said or "position" in said else None


def action_kinds(space: str | None, names: Sequence[str] | None, size: int) -> list[Kind] | None:
    """Return what each number of an action is; None if that of any is not known.

    Args:
        space: `space` of an artifact's action.
        names: Of the numbers, as far as they are known.
        size: How many numbers there are.
    """
    whole = kind_of(space or "")
    kinds = [_kind_named(name.lower(), whole) for name in names or [""] * size]
    return None if None in kinds else kinds  # type: ignore[return-value]


def _kind_named(name: str, whole: Kind | None) -> Kind | None:
    if name.endswith(".vel"):
        return Kind.MOTION
    if "gripper" in name and whole is not None:
        return Kind.PLACE
    return Kind.PLACE if whole is None and name.endswith(".pos") else whole


def hold_action(kinds: Sequence[Kind], last: np.ndarray | None) -> np.ndarray | None:
    """Return the action (A,) that holds; None to send nothing, where a place is not known.

    Args:
        kinds: Of the numbers.
        last: The action (A,) sent last; None before the first.
    """
    stands = np.array([kind is Kind.MOTION for kind in kinds])
    held = np.where(stands, 0.0, np.nan if last is None else last).astype(np.float32)
    return held if np.isfinite(held).all() else None
