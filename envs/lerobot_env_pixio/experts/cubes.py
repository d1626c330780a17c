"""Demonstrators of the tasks on a table with cubes: Lift and Stack."""

from typing import Any

import numpy as np

from lerobot_env_pixio.experts.base import NoisyExpert, wrap


class _CubeExpert(NoisyExpert):
    """What grasping a cube of 40 to 44 mm takes."""

    # The fingers close when the cube's centre is this close beside and below the point between their tips (metres), and stay
    # closed in the wider region: a cube that slips a little must not be dropped.
    GRASP_RADIUS, HOLD_RADIUS = 0.014, 0.022
    GRASP_HEIGHT, HOLD_HEIGHT = 0.008, 0.018
    CLOSING_OPENING = 0.066
    # Upward action as the opening between the fingers (metres) shrinks: none before they can have met the cube held by
    # its corners (59 mm), full when they hold it by its sides (42 mm).
    LIFT_OPENING = (0.064, 0.044)

    def _is_between_fingers(self, to_cube: np.ndarray, opening: float) -> bool:
        """Whether the fingers shall close, or stay closed, on the cube."""
        is_closing = opening < self.CLOSING_OPENING
        radius = self.HOLD_RADIUS if is_closing else self.GRASP_RADIUS
        height = self.HOLD_HEIGHT if is_closing else self.GRASP_HEIGHT
        return bool(float(np.linalg.norm(to_cube[:2])) < radius and -to_cube[2] < height)

    def _lift(self, opening: float) -> float:
        """Return how far the fingers hold the cube: 0 before they can have met it, 1 when they hold it."""
        return float(np.interp(opening, self.LIFT_OPENING[::-1], (1.0, 0.0)))


class LiftExpert(_CubeExpert):
    """Lifts the cube: down a funnel around it, close when it is between the fingers, up as the fingers meet it."""

    def _decide(self, agent_pos: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        return self.clean_action(agent_pos, info["object_pose"][:3])

    def clean_action(self, agent_pos: np.ndarray, cube_position: np.ndarray) -> np.ndarray:
        """Return the action without noise, before clipping.

        Args:
            agent_pos: The environment's proprioception (7 + gripper joints,).
            cube_position: Centre of the cube (3,), metres.
        """
        to_cube = cube_position - agent_pos[:3]
        opening = self._opening(agent_pos)
        move = self.POSITION_GAIN * self._above(to_cube)
        gripper = -1.0
        if self._is_between_fingers(to_cube, opening):
            gripper = 1.0
            lift = self._lift(opening)
            move[2] = lift + (1.0 - lift) * self.POSITION_GAIN * to_cube[2]
        return np.concatenate([move, self._turn_down(agent_pos), [gripper]])


class StackExpert(_CubeExpert):
    """Puts the cube on the other one: grasp as for `LiftExpert`, carry it up and over, lower it, let go, retreat.

    The fingers keep clear of the other cube while they go down: where it stands close by in the direction in which they
    open, the hand turns away from it first.
    """

    # From the other cube's centre up to where this one's shall come to rest: half of 50 mm and half of 40 mm.
    REST_HEIGHT = 0.045
    # How much higher the other cube's centre is while both stand on the table (metres).
    GOAL_EXCESS = 0.005
    # The cube is let go this close beside its place (metres), and the fingers stay open in the wider region, which begins once
    # they are further open than a cube between them, held by its corners, can keep them.
    PLACE_RADIUS, LEFT_RADIUS = 0.010, 0.025
    LEFT_OPENING = 0.060
    # Upward action as the opening (metres) grows: the hand stays until it holds nothing that it could take along.
    RETREAT_OPENING = (0.060, 0.068)
    # It is let go this close above its place (metres), as the opening between the fingers (metres) grows: a cube held by its
    # corners tips as it touches down, and its centre stays higher.
    PLACE_HEIGHT = (0.006, 0.020)
    PLACE_OPENING = (0.044, 0.054)
    # How high the funnel around the place is. The carried cube's sideways motion fades out as it falls that far below it.
    CARRY_HEIGHT = 0.04
    # The fingers hold the cube for certain as it rises off the table (metres).
    RISE = (0.002, 0.010)
    # Angle (radians) to keep between the line of the fingers and the way to the other cube, as the distance between the
    # cubes (metres) grows: the open fingers reach 66 mm out, the other cube's corners 35 mm.
    CLEAR_DISTANCE = (0.10, 0.12)
    CLEAR_ANGLE = 0.9

    def _decide(self, agent_pos: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        return self.clean_action(agent_pos, info["object_pose"][:3], info["goal_pose"][:3])

    def clean_action(self, agent_pos: np.ndarray, cube_position: np.ndarray, goal_position: np.ndarray) -> np.ndarray:
        """Return the action without noise, before clipping.

        Args:
            agent_pos: The environment's proprioception (7 + gripper joints,).
            cube_position: Centre of the cube to be moved (3,), metres.
            goal_position: Centre of the cube to put it on (3,), metres.
        """
        to_cube = cube_position - agent_pos[:3]
        to_place = goal_position + [0.0, 0.0, self.REST_HEIGHT] - cube_position
        opening = self._opening(agent_pos)
        turn = self._turn_down(agent_pos)
        if self._is_placed(to_place, opening):
            move = np.array([0.0, 0.0, np.interp(opening, self.RETREAT_OPENING, (0.0, 1.0))])
            turn[2] = 0.0
            gripper = -1.0
        elif self._is_between_fingers(to_cube, opening):
            rise = self.GOAL_EXCESS - (goal_position - cube_position)[2]
            hold = max(self._lift(opening), float(np.interp(rise, self.RISE, (0.0, 1.0))))
            move = hold * self._carry(to_place) + (1.0 - hold) * self.POSITION_GAIN * to_cube
            turn[2] = 0.0
            gripper = 1.0
        else:
            move = self.POSITION_GAIN * self._above(to_cube)
            turn[2] += self.ROTATION_GAIN * self._clear_yaw(agent_pos, goal_position - cube_position)
            gripper = -1.0
        return np.concatenate([move, turn, [gripper]])

    def _is_placed(self, to_place: np.ndarray, opening: float) -> bool:
        radius = self.LEFT_RADIUS if opening > self.LEFT_OPENING else self.PLACE_RADIUS
        height = np.interp(opening, self.PLACE_OPENING, self.PLACE_HEIGHT)
        return bool(np.linalg.norm(to_place[:2]) < radius and abs(to_place[2]) < height)

    def _carry(self, to_place: np.ndarray) -> np.ndarray:
        """Return the move (3,) of the held cube: up first, then over and down the funnel around its place."""
        return self._up_first(self._above(to_place, self.CARRY_HEIGHT), self.CARRY_HEIGHT)

    def _clear_yaw(self, agent_pos: np.ndarray, to_goal: np.ndarray) -> float:
        """Return the hand's yaw (radians) at which the fingers keep clear of the other cube."""
        clear_angle = np.interp(np.linalg.norm(to_goal[:2]), self.CLEAR_DISTANCE, (self.CLEAR_ANGLE, 0.0))
        # From the way to the other cube to the line of the fingers, which points two ways: modulo half a turn.
        straight = wrap(np.pi / 2 - np.arctan2(to_goal[1], to_goal[0]), np.pi)
        if abs(straight) >= clear_angle:
            return 0.0
        now = wrap(straight + 2.0 * np.sign(agent_pos[3]) * agent_pos[4], np.pi)
        return float(np.copysign(clear_angle, now) - straight)
