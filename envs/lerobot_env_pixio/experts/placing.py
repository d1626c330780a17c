"""Demonstrators of the tasks in which an object is grasped, carried over an edge and put down: can and nut."""

from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from lerobot_env_pixio.experts.base import NoisyExpert, direction, hand_yaw, pointing_down, wrap


class _PlacingExpert(NoisyExpert):
    """Grasps at a point of the object with a yaw of the hand, carries up, over and down a funnel, and lets go.

    States, each told by what can be seen, so that one follows from the other and a failed grasp starts anew:
    reach (open, to above the grasp point with the hand turned, down the funnel); grasp (the point lies between
    the fingers: close, stay); carry (the fingers hold something: up, over, down); leave (the object is where it
    shall be: open, up).
    """

    # Distance between fingers that have met the object and between those that hold it (metres): none of the carrying motion at
    # the first, all of it at the second.
    HOLD_OPENING: tuple[float, float]
    # The object is let go this close above its place and beside its axis (metres).
    LET_GO_HEIGHT: float
    LET_GO_RADIUS: float
    # How high above its place the object passes over (metres), and how far below that sideways motion has faded out.
    CARRY_HEIGHT: float
    CARRY_BAND = 0.03
    # The place's funnel is entered this close beside its axis (metres); it is steeper than that of the grasp, since walls
    # may stand around the place.
    PLACE_RADIUS: float
    PLACE_SLOPE = 6.0

    def _move(
        self,
        agent_pos: np.ndarray,
        to_grasp: np.ndarray,
        yaw_to_grasp: float,
        to_place: np.ndarray,
        yaw_to_place: float,
    ) -> np.ndarray:
        """Return the action without noise, before clipping.

        Args:
            agent_pos: The environment's proprioception (7 + gripper joints,).
            to_grasp: Way from the end effector to the grasp point (3,), metres.
            yaw_to_grasp: Turn of the hand about the vertical that the grasp takes, radians.
            to_place: Way from the object to its place (3,), metres.
            yaw_to_place: Turn of the held object about the vertical, radians.
        """
        opening = self._opening(agent_pos)
        now = hand_yaw(agent_pos)
        if self._is_placed(to_place):
            retreat = self._retreat(opening)
            stay = (1.0 - retreat) * self.POSITION_GAIN * to_place[:2]
            return np.concatenate([stay, [retreat], self._turn_to(agent_pos, pointing_down(now)), [-1.0]])
        if self._is_between_fingers(to_grasp, opening, yaw_to_grasp):
            hold = self._hold(opening)
            move = hold * self._carry(to_place) + (1.0 - hold) * self.POSITION_GAIN * to_grasp
            turn = self._turn_to(agent_pos, pointing_down(now + hold * yaw_to_place))
            return np.concatenate([move, turn, [1.0]])
        way = self._above(to_grasp, yaw=yaw_to_grasp)
        turn = self._turn_to(agent_pos, pointing_down(now + yaw_to_grasp))
        return np.concatenate([self.POSITION_GAIN * way, turn, [-1.0]])

    def _is_placed(self, to_place: np.ndarray) -> bool:
        """Whether the object is where it shall be let go."""
        return bool(np.linalg.norm(to_place[:2]) < self.LET_GO_RADIUS and -to_place[2] < self.LET_GO_HEIGHT)

    def _retreat(self, opening: float) -> float:
        """Return the upward action of a hand that has let go: none before it is open."""
        return float(np.interp(opening, (self.HOLD_OPENING[0], self.HOLD_OPENING[0] + 0.01), (0.0, 1.0)))

    def _carry(self, to_place: np.ndarray) -> np.ndarray:
        """Return the move (3,) of the held object: up first, then over, and down the funnel around its place."""
        beside = float(np.linalg.norm(to_place[:2]))
        height = np.clip(self.PLACE_SLOPE * (beside - self.PLACE_RADIUS), 0.0, self.CARRY_HEIGHT)
        return self._up_first(to_place + [0.0, 0.0, height], self.CARRY_BAND)


class PickPlaceCanExpert(_PlacingExpert):
    """Puts the can into its bin: grasp it around, lift it over the bins' walls, lower it and let go.

    A can that lies is grasped across its axis.
    """

    HELD_WIDTH = 0.050  # the can's diameter
    GRASP_RADIUS, GRASP_HEIGHT = 0.017, 0.020
    CLOSING_OPENING = 0.070
    HOLD_OPENING = (0.060, 0.052)
    CARRY_HEIGHT = 0.12  # the walls are 80 mm above the bins' floor
    PLACE_RADIUS = 0.012
    # The place, from the middle of the can's quarter of the bin (195 mm by 245 mm): the nearer part, which the arm reaches
    # upright.
    PLACE = np.array([-0.035, -0.05, 0.0])
    # The can is let go this close above its place (metres). The funnel leads there within the smaller part of the radius; the
    # rest is for drifting while the fingers open.
    LET_GO_HEIGHT = 0.02
    LET_GO_RADIUS = 0.06
    # Vertical part of the axis below which a can counts as lying.
    UPRIGHT = 0.7

    def _decide(self, agent_pos: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        can, place = info["object_pose"], info["goal_pose"]
        axis = Rotation.from_quat(can[3:]).apply([0.0, 0.0, 1.0])
        yaw = 0.0 if abs(axis[2]) > self.UPRIGHT else direction(axis)
        yaw_to_grasp = wrap(yaw, np.pi) - hand_yaw(agent_pos)
        to_place = place[:3] + self.PLACE - can[:3]
        return self._move(agent_pos, can[:3] - agent_pos[:3], yaw_to_grasp, to_place, 0.0)


class NutAssemblySquareExpert(_PlacingExpert):
    """Puts the nut over the square peg: grasp its handle across, lift it over the peg, turn it straight, lower it."""

    HELD_WIDTH = 0.032  # the handle's
    GRASP_RADIUS, GRASP_HEIGHT, GRASP_YAW = 0.021, 0.016, 0.5
    CLOSING_OPENING = 0.060
    HOLD_OPENING = (0.044, 0.034)
    CARRY_HEIGHT = 0.145  # the peg is 130 mm high, the nut comes to rest 10 mm above the table
    PLACE_RADIUS, PLACE_SLOPE = 0.008, 6.0  # the hole leaves 7 mm around the peg, over whose edge it slips
    # Where the handle is held, from the nut's centre along it (metres).
    HANDLE = 0.056
    # The nut's centre when it is around the peg, from the peg's centre (metres).
    REST_HEIGHT = -0.015
    # The nut is on the peg when it is below the peg's top, from the peg's centre, and this close to its axis (metres).
    PEG_TOP = 0.100
    THREADED_RADIUS = 0.015
    # Once on the peg it goes down at full speed; only what is held 5 mm too high for that counts as not there yet (metres).
    THREADED_MARGIN = 0.005
    # It is let go this close to the axis and above its place (metres): it slides down the rest.
    LET_GO_RADIUS, LET_GO_HEIGHT = 0.03, 0.01

    def _decide(self, agent_pos: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        nut, peg = info["object_pose"], info["goal_pose"]
        handle = Rotation.from_quat(nut[3:]).apply([1.0, 0.0, 0.0])
        handle_yaw = direction(handle)
        to_grasp = nut[:3] + self.HANDLE * handle - agent_pos[:3]
        yaw_to_grasp = wrap(handle_yaw, np.pi) - hand_yaw(agent_pos)
        to_place = peg[:3] + [0.0, 0.0, self.REST_HEIGHT] - nut[:3]
        # Straight on the peg, the handle to a side or towards the robot: away from it the arm would be at its longest.
        is_towards_robot = abs(handle_yaw) > 0.75 * np.pi
        straight = np.pi if is_towards_robot else float(np.copysign(np.pi / 2, handle_yaw))
        yaw_to_place = wrap(straight - handle_yaw, 2 * np.pi)
        return self._move(agent_pos, to_grasp, yaw_to_grasp, to_place, yaw_to_place)

    def _carry(self, to_place: np.ndarray) -> np.ndarray:
        beside = float(np.linalg.norm(to_place[:2]))
        height_on_peg = self.PEG_TOP - self.REST_HEIGHT - self.THREADED_MARGIN
        if beside < self.THREADED_RADIUS and -to_place[2] < height_on_peg:
            return np.clip([*(self.POSITION_GAIN * to_place[:2]), -1.0], -1.0, 1.0)
        return super()._carry(to_place)
