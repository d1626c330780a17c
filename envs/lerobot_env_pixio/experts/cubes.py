"""Demonstrators of the tasks on a table with cubes: Lift and Stack."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from lerobot_env_pixio.experts.base import NoisyExpert, direction, hand_yaw, pointing_down, wrap


@dataclass(frozen=True)
class CubeGrasp:
    """How fingers take a cube of 40 to 44 mm.

    Attributes:
        yaw: The turn (radians) from a side of the cube to the line of the fingers; None for fingers that open wider than
            the cube's diagonal and close to less than its side: they may come as they are.
        depth: How far below the cube's centre the point between the finger tips goes, metres.
        closing_opening: Distance (metres) between fingers that are on their way to close.
        hold_opening: Distances (metres) between which the hand begins to rise: not at all before the fingers can have met the
            cube, at full speed when they hold it.
        enough_opening: Distance (metres) at which the fingers stop opening.
    """

    yaw: float | None
    depth: float
    closing_opening: float
    hold_opening: tuple[float, float]
    enough_opening: float = np.inf


# By `RobotSpec.cube_grasp`. Held by its corners the cube is 59 mm wide, by its sides 42 mm.
CUBE_GRASPS = {
    "as it lies": CubeGrasp(yaw=None, depth=0.0, closing_opening=0.066, hold_opening=(0.064, 0.044)),
    "by its sides": CubeGrasp(yaw=0.0, depth=0.0, closing_opening=0.055, hold_opening=(0.044, 0.041)),
    # Fingers that need 80 steps to close from wide open, and hold so weakly (0.3 Nm) that the cube slips out of some grasps.
    "by its sides, slowly": CubeGrasp(
        yaw=0.0, depth=0.0, closing_opening=0.056, hold_opening=(0.044, 0.041), enough_opening=0.058
    ),
    # The pads do not stay parallel: further down they are closer to each other.
    "by its corners": CubeGrasp(yaw=np.pi / 4, depth=0.006, closing_opening=0.090, hold_opening=(0.068, 0.061)),
}


class _CubeExpert(NoisyExpert):
    """What grasping a cube takes."""

    GRASP_RADIUS, HOLD_RADIUS = 0.014, 0.022
    GRASP_HEIGHT, HOLD_HEIGHT = 0.008, 0.018
    CLOSING_OPENING = CUBE_GRASPS["as it lies"].closing_opening
    HOLD_OPENING = CUBE_GRASPS["as it lies"].hold_opening
    HELD_WIDTH = 0.042


class LiftExpert(_CubeExpert):
    """Lifts the cube: down a funnel around it, close when it is between the fingers, up as the fingers meet it.

    Fingers that cannot take the cube however it lies turn to its sides or corners on their way, see `CUBE_GRASPS`.
    """

    HELD_WIDTH = 0.059  # by its corners, where nothing else is possible

    def __init__(self, seed: int, robot: str = "Panda", mistakes: float = 0.0) -> None:
        super().__init__(seed, robot, mistakes)
        self._grasp = CUBE_GRASPS[self._robot.cube_grasp]
        self.CLOSING_OPENING, self.HOLD_OPENING = self._grasp.closing_opening, self._grasp.hold_opening

    def _decide(self, agent_pos: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        return self.clean_action(agent_pos, info["object_pose"])

    def clean_action(self, agent_pos: np.ndarray, cube_pose: np.ndarray) -> np.ndarray:
        """Return the action without noise, before clipping.

        Args:
            agent_pos: The environment's proprioception (7 + gripper joints,).
            cube_pose: Position (3,) of the cube's centre, metres, and its quaternion (4,) in x y z w.
        """
        to_cube = cube_pose[:3] - [0.0, 0.0, self._grasp.depth] - agent_pos[:3]
        opening = self._opening(agent_pos)
        yaw, turn = 0.0, self._turn_down(agent_pos)
        if self._grasp.yaw is not None:
            yaw = wrap(_yaw_of_sides(cube_pose) + self._grasp.yaw - hand_yaw(agent_pos), np.pi / 2)
        move = self.POSITION_GAIN * self._above(to_cube, yaw=yaw)
        gripper = -1.0 if opening < self._grasp.enough_opening else 0.0
        if self._is_between_fingers(to_cube, opening, yaw):
            lift = self._hold(opening)
            move, gripper = self.POSITION_GAIN * to_cube, 1.0
            move[2] = lift + (1.0 - lift) * self.POSITION_GAIN * to_cube[2]
            yaw = 0.0  # what lies between the fingers is not turned
        if self._grasp.yaw is not None:
            turn = self._turn_to(agent_pos, pointing_down(hand_yaw(agent_pos) + yaw))
        return np.concatenate([move, turn, [gripper]])


def _yaw_of_sides(cube_pose: np.ndarray) -> float:
    """Return the direction (radians) of a side of a cube with a pose (7,): the most horizontal, whichever it has fallen on."""
    sides = Rotation.from_quat(cube_pose[3:]).as_matrix().T
    return direction(sides[np.argmin(np.abs(sides[:, 2]))])


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
    PLACE_RADIUS, LEFT_RADIUS = 0.016, 0.025
    LEFT_OPENING = 0.060
    # Upward action as the opening (metres) grows: the hand stays until it holds nothing that it could take along.
    RETREAT_OPENING = (0.060, 0.068)
    # It is let go this close above its place (metres), as the opening between the fingers (metres) grows: a cube held by its
    # corners tips as it touches down, and its centre stays higher.
    PLACE_HEIGHT = (0.009, 0.022)
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
            hold = max(self._hold(opening), float(np.interp(rise, self.RISE, (0.0, 1.0))))
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
        straight = wrap(np.pi / 2 - direction(to_goal), np.pi)
        if abs(straight) >= clear_angle:
            return 0.0
        now = wrap(straight + 2.0 * np.sign(agent_pos[3]) * agent_pos[4], np.pi)
        return float(np.copysign(clear_angle, now) - straight)
