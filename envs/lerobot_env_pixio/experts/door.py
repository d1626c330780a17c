"""The demonstrator of Door."""

from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from lerobot_env_pixio.experts.base import NoisyExpert


class DoorExpert(NoisyExpert):
    """Opens the door: hold its lever, turn it down, pull.

    States, each told by what can be seen: reach (open, above the lever, then down a funnel, the hand tilted away
    from the door so that the palm keeps clear of it and one finger passes behind the lever); grasp (the lever lies
    between the fingers: close); turn (holding: ahead of the lever on its arc, the hand turning with it); pull (the
    lever is down, or the door ajar: away from the door).

    The poses are the latch's (``object_pose``: it turns with the lever, which lies along its x axis and in front of the
    door, whose inside its y axis points to) and the frame's (``goal_pose``).
    """

    CAN_MISS = False

    # Where the lever is held, in the latch's frame (metres): along the lever, and in front of the door.
    GRIP = np.array([0.125, -0.10, 0.0])
    # The hand that holds it, in the latch's frame: its fingers beside each other across the lever, pointing down and, by
    # 0.75 rad, towards the door.
    GRASP = Rotation.from_euler("x", 0.75) * Rotation.from_euler("y", np.pi)
    # Sideways motion fades out as the hand is this far (metres) below the funnel: it shall come from above.
    REACH_BAND = 0.04
    GRASP_RADIUS, HOLD_RADIUS = 0.010, 0.025
    GRASP_HEIGHT, HOLD_HEIGHT = 0.012, 0.020
    CLOSING_OPENING = 0.066
    HELD_WIDTH = 0.045
    # The work with the lever begins as the opening between the fingers shrinks from the first to the second (metres). A hand
    # that lags behind the turning lever is spread by it to 58 mm, and must not stop pushing for that.
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
        latch_position, latch = info["object_pose"][:3], Rotation.from_quat(info["object_pose"][3:])
        frame = Rotation.from_quat(info["goal_pose"][3:])
        hinge, _, lever = (frame.inv() * latch).as_euler("ZXY")  # about z by the hinge, then about y by the lever
        to_grip = latch_position + latch.apply(self.GRIP) - agent_pos[:3]
        opening = self._opening(agent_pos)
        if not self._is_between_fingers(to_grip, opening):
            turn = self._turn_to(agent_pos, latch * self.GRASP)
            return np.concatenate([self._up_first(self._above(to_grip), self.REACH_BAND), turn, [-1.0]])
        hold = self._hold(opening)
        pull = 1.0 if hinge > self.AJAR else float(np.interp(lever, self.RELEASE, (0.0, 1.0)))
        turning = hold * (1.0 - pull)
        along, inward, across = latch.as_matrix().T
        push = -self.PUSH * across
        stay = to_grip + self.STAY * (along @ to_grip) * along
        move = self.POSITION_GAIN * stay + turning * push + hold * pull * (-inward + self.KEEP_DOWN * push)
        turn = self._turn_to(agent_pos, latch * Rotation.from_euler("y", turning * self.LEAD) * self.GRASP)
        return np.concatenate([move, turn, [1.0]])

    def _is_between_fingers(self, to_grasp: np.ndarray, opening: float, yaw: float = 0.0) -> bool:
        # Unlike a thing on a table, the lever can be above the hand.
        is_below = to_grasp[2] > (self.HOLD_HEIGHT if opening < self.CLOSING_OPENING else self.GRASP_HEIGHT)
        return not is_below and super()._is_between_fingers(to_grasp, opening, yaw)
