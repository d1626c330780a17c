"""The demonstrator of Door."""

from typing import Any

import numpy as np

from lerobot_env_pixio.experts.base import NoisyExpert, about_y, quaternion, rotation_matrix


class DoorExpert(NoisyExpert):
    """Opens the door: hold its lever, turn it down, pull.

    States, each told by what can be seen: reach (open, above the lever, then down a funnel, the hand tilted away
    from the door so that the palm keeps clear of it and one finger passes behind the lever); grasp (the lever lies
    between the fingers: close); turn (holding: ahead of the lever on its arc, the hand turning with it); pull (the
    lever is down, or the door ajar: away from the door).

    The poses are the latch's (``object_pose``: it turns with the lever, which lies along its x axis and in front of the
    door, whose inside its y axis points to) and the frame's (``goal_pose``).
    """

    # Where the lever is held, in the latch's frame (metres): along the lever, and in front of the door.
    GRIP = np.array([0.125, -0.10, 0.0])
    # The hand that holds it, in the latch's frame: its fingers beside each other across the lever, pointing down and, by this
    # tilt (radians), towards the door.
    TILT = 0.75
    # Sideways motion fades out as the hand is this far (metres) below the funnel: it shall come from above.
    REACH_BAND = 0.04
    # The fingers close when the lever is this close beside and below (metres), and stay closed in the wider region.
    GRASP_RADIUS, HOLD_RADIUS = 0.010, 0.025
    GRASP_HEIGHT, HOLD_HEIGHT = 0.012, 0.020
    CLOSING_OPENING = 0.066
    # The work with the lever begins as the opening between the fingers shrinks from the first to the second (metres).
    HOLD_OPENING = (0.066, 0.060)
    # The push across the lever (action units), how far the hand's turn leads the lever's (radians), and the angles between which
    # turning becomes pulling, with a share of the push kept.
    PUSH, KEEP_DOWN = 1.5, 0.3
    LEAD = 0.2
    # Along the lever the hand keeps its place this much more firmly, since it slides towards the axis.
    STAY = 4.0
    RELEASE = (1.0, 1.3)
    # A door that is ajar by this angle (radians) needs no turned lever.
    AJAR = 0.05

    def _decide(self, agent_pos: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        latch, frame = info["object_pose"], info["goal_pose"]
        latch_33 = rotation_matrix(latch[3:])
        turned_33 = rotation_matrix(frame[3:]).T @ latch_33  # about z by the hinge, then about y by the lever
        hinge = float(np.arctan2(-turned_33[0, 1], turned_33[1, 1]))
        lever = float(np.arctan2(-turned_33[2, 0], turned_33[2, 2]))
        to_grip = latch[:3] + latch_33 @ self.GRIP - agent_pos[:3]
        opening = self._opening(agent_pos)
        if not self._is_between_fingers(to_grip, opening):
            turn = self._turn_to(agent_pos, self._grasp(latch_33))
            return np.concatenate([self._up_first(self._above(to_grip), self.REACH_BAND), turn, [-1.0]])
        hold = float(np.interp(opening, self.HOLD_OPENING[::-1], (1.0, 0.0)))
        pull = 1.0 if hinge > self.AJAR else float(np.interp(lever, self.RELEASE, (0.0, 1.0)))
        turning, outward = hold * (1.0 - pull), -latch_33[:, 1]
        push = -self.PUSH * latch_33[:, 2]
        along = latch_33[:, 0]
        stay = to_grip + self.STAY * (along @ to_grip) * along
        move = self.POSITION_GAIN * stay + turning * push + hold * pull * (outward + self.KEEP_DOWN * push)
        turn = self._turn_to(agent_pos, self._grasp(latch_33 @ about_y(turning * self.LEAD)))
        return np.concatenate([move, turn, [1.0]])

    def _is_between_fingers(self, to_grip: np.ndarray, opening: float) -> bool:
        is_closing = opening < self.CLOSING_OPENING
        radius = self.HOLD_RADIUS if is_closing else self.GRASP_RADIUS
        height = self.HOLD_HEIGHT if is_closing else self.GRASP_HEIGHT
        return bool(np.linalg.norm(to_grip[:2]) < radius and abs(to_grip[2]) < height)

    def _grasp(self, latch_33: np.ndarray) -> np.ndarray:
        """Return the quaternion (4,) of the hand that holds the lever of a latch with that orientation (3, 3)."""
        sine, cosine = np.sin(self.TILT), np.cos(self.TILT)
        return quaternion(latch_33 @ np.array([[-1.0, 0.0, 0.0], [0.0, cosine, sine], [0.0, sine, -cosine]]))
