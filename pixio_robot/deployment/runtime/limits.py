"""What a command may be: finite, within its range, and no further from the last one than it may move in a step.

A step of a *place* is its distance from the last command, or, of the first one, from where the robot stands. A step of a
*motion* is the motion itself (`holding` says which numbers are which). The largest step is the largest in the
demonstrations times a factor; in the first seconds it grows from nothing to that, so that the robot moves gently from
where it stands to where the policy wants it.

Shape letters: A action size, S state size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pixio_robot.common.errors import UserError
from pixio_robot.deployment.runtime.holding import HoldReason, Kind, NoActionError, action_kinds, hold_action

_ROUNDING = 1e-4  # of a range, in which positions are read and sent


@dataclass(frozen=True)
class Limited:
    """A command beside what it comes from; each (A,).

    Attributes:
        sent: Within all limits.
        wanted: What the policy gave.
        before: What a step is counted from: the last command, or where the robot stands; NaN where that is not known.
        largest_step: That was allowed; infinite where none is known.
        slowed: Which numbers were further away than a step.
        clipped: Which numbers were outside of their range.
    """

    sent: np.ndarray
    wanted: np.ndarray
    before: np.ndarray
    largest_step: np.ndarray
    slowed: np.ndarray
    clipped: np.ndarray


class Limits:
    """Limits the commands of one robot, and knows the last one, from which the next step and a hold begin."""

    def __init__(
        self,
        metadata: Mapping[str, Any],
        *,
        state_names: Sequence[str] | None = None,
        action_names: Sequence[str] | None = None,
        action_space: str | None = None,
        step_factor: float | None = None,
        step: float | None = None,
        ramp_steps: int = 0,
    ) -> None:
        """Take the limits from an artifact's metadata.

        Args:
            metadata: Of the artifact.
            state_names: Names of the state's numbers; None: the artifact's.
            action_names: Names of the action's numbers; None: the artifact's.
            action_space: In words; None: the artifact's.
            step_factor: How much further a number may move in a step than it did in demonstrations; None: any step.
            step: Or the largest step of every number, in its own unit.
            ramp_steps: Commands after which the largest step is allowed.

        Raises:
            UserError: Steps shall be limited, but what numbers mean, the demonstrations' steps, or where the robot stands
                is not known.
        """
        described = metadata["action"]
        self.names = list(action_names or described["names"] or (f"action[{n}]" for n in range(described["size"])))
        self.kinds = action_kinds(action_space or described["space"], self.names, described["size"])
        self.minimum, self.maximum = (np.asarray(described[end], dtype=np.float32) for end in ("minimum", "maximum"))
        self._motions = np.array([kind is Kind.MOTION for kind in self.kinds or [Kind.PLACE] * len(self.names)])
        # Standing still is always allowed, though demonstrations may never have stood.
        self.minimum = np.where(self._motions, np.minimum(self.minimum, 0), self.minimum)
        self.maximum = np.where(self._motions, np.maximum(self.maximum, 0), self.maximum)
        self._ramp_steps = ramp_steps
        self._steps = np.full(len(self.names), np.inf)
        state = metadata["state"] or {}
        known = list(state_names or state.get("names") or ())
        self._places = [known.index(name) if name in known else -1 for name in self.names]
        if step is not None or step_factor is not None:
            self._steps = self._largest_steps(described, step_factor, step)
        self.reset()

    def _largest_steps(self, described: Mapping[str, Any], factor: float | None, step: float | None) -> np.ndarray:
        self.check_holds()
        unseen = [
            name
            for name, place, moves in zip(self.names, self._places, self._motions, strict=True)
            if place < 0 and not moves and "gripper" not in name.lower()
        ]
        if unseen:
            raise UserError(
                f"The state does not say where {', '.join(unseen)} {'stands' if len(unseen) == 1 else 'stand'}, so that the "
                "first command could be any step away: state and action need the same names in the demonstrations."
            )
        if step is not None:
            return np.full(len(self.names), step)
        changes, values = described.get("largest_change"), described.get("largest_value")
        if changes is None or values is None:
            raise UserError(
                "The artifact does not say how far its numbers move in a step: export it again with its demonstrations, or "
                "give the largest step with largest_step=…."
            )
        steps = np.where(self._motions, values, changes)
        for kind in (self._motions, ~self._motions):  # what never moved is put where it was, as fast as the others move
            steps = np.where(kind & (steps == 0), steps.max(where=kind, initial=0.0), steps)
        assert factor is not None
        return factor * steps

    def check_holds(self) -> None:
        """Check that a hold is known.

        Raises:
            UserError: It is not.
        """
        if self.kinds is None:
            raise UserError(
                f"It is not known whether an action ({', '.join(self.names)}) is a place or a motion, so nothing could hold the "
                "robot: say it with action_space=absolute, delta or velocity, here or at the export."
            )

    def reset(self) -> None:
        """Begin an episode."""
        self.last: np.ndarray | None = None
        self._commands = 0

    def begin(self, state: np.ndarray | None) -> None:
        """Learn where the robot stands before its first command.

        Args:
            state: (S,) as observed; None where there is none.

        Raises:
            NoActionError: A number stands further outside of its range than a step reaches.
        """
        if self.last is not None:
            return
        seen = [np.nan if state is None or place < 0 else float(state[place]) for place in self._places]
        stands = np.where(self._motions, 0.0, seen)
        outside = np.abs(stands - np.clip(stands, self.minimum, self.maximum))
        spans = self.maximum - self.minimum
        far = outside > self._steps + _ROUNDING * spans  # not where the place is not known
        self.last = stands
        if far.any():
            self.last = None
            said = ", ".join(
                f"{self.names[place]} stands at {stands[place]:.4g}, outside of {self.minimum[place]:.4g} to "
                f"{self.maximum[place]:.4g}"
                for place in np.flatnonzero(far)
            )
            raise NoActionError(
                HoldReason.REFUSED_START,
                f"{said}, where its commands are; bring it there first, or look at units and calibration",
            )

    def apply(self, action: np.ndarray) -> Limited:
        """Return a command (A,) within all limits, the next one's steps being counted from it.

        Raises:
            NoActionError: The action is not finite.
        """
        if not np.isfinite(action).all():
            raise NoActionError(HoldReason.BAD_ACTION, "the policy gave actions that are not finite")
        assert self.last is not None
        self._commands += 1
        share = min(1.0, self._commands / self._ramp_steps) if self._ramp_steps else 1.0
        before = np.where(self._motions, 0.0, self.last)
        allowed = np.where(np.isinf(self._steps), np.inf, self._steps * share)
        # The range comes last: from outside of it the robot goes in by a step that the ramp would not allow yet.
        near = _within(action, before, allowed)
        inside = np.clip(near, self.minimum, self.maximum)
        self.last = np.where(self._motions, 0.0, inside)
        return Limited(inside.astype(np.float32), action, before, allowed, near != action, inside != near)

    def hold(self) -> np.ndarray | None:
        """Return the action (A,) that stands still; None to send nothing, as before the first command."""
        return hold_action(self.kinds, self.last) if self.kinds is not None and self._commands else None


def _within(values: np.ndarray, middle: np.ndarray, reach: np.ndarray) -> np.ndarray:
    known = np.isfinite(middle) & np.isfinite(reach)
    low, high = np.where(known, middle - reach, -np.inf), np.where(known, middle + reach, np.inf)
    return np.clip(values, low, high)
