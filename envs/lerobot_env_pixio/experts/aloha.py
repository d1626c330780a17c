"""Scripted demonstrators for two ViperX arms that are commanded by their joints' positions.

Each hand goes towards a goal that follows, every instant anew, from where hands and objects are: there are no timers and no
hidden phases. Damped least squares on MuJoCo's Jacobians turn the way into a change of the commanded joint positions,
which are all that is remembered: the servos sag, and a command that moves on until the hand is there makes up for it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from scipy.spatial.transform import Rotation

from lerobot_env_pixio.experts.base import BurstNoise
from lerobot_env_pixio.simulators.aloha import JOINT_LIMITS

if TYPE_CHECKING:
    import mujoco

SIDES = ("left", "right")

# How the commanded pose of a hand moves in a step: by this share of the way still to go, and no further than this (metres,
# radians). A command never runs further ahead of its joint than the last (radians), whatever the hand pushes against.
GAIN = 0.15
LONGEST_MOVE = 0.01
LARGEST_TURN = 0.06
LONGEST_LEAD = 0.25
DAMPING = 0.02  # of the least squares, in metres or radians of the hand for a radian of a joint

OPEN, CLOSED = 1.0, 0.0
# Steep enough for the fingers to reach around what lies on the table, flat enough for the wrist to stay within its joints.
PITCH_DOWN = np.deg2rad(60.0)


@dataclass(frozen=True)
class Hand:
    """Where a hand is, or shall be.

    Attributes:
        position: Point between the finger tips (3,), metres, world frame.
        rotation: Axes of the hand in the world (3, 3): the first points ahead, the fingers open along the second.
    """

    position: np.ndarray
    rotation: np.ndarray


type Goals = dict[str, tuple[Hand, float]]  # of each side's hand and gripper


def hand_rotation(side: str, pitch: float, roll: float = 0.0) -> np.ndarray:
    """Return the rotation of a hand that points across the table and down by a pitch, then rolled about where it points.

    Args:
        side: The arm, which stands on the left looking along x or on the right looking back.
        pitch: Radians below the horizontal.
        roll: Radians.
    """
    facing = 0.0 if side == "left" else np.pi
    return Rotation.from_euler("ZYX", [facing, pitch, roll]).as_matrix()


class Kinematics:
    """Forward kinematics of both arms, and how to move the joints for the hands to move.

    Args:
        model: The simulation's model; its state is not touched.
    """

    def __init__(self, model: "mujoco.MjModel") -> None:
        import mujoco

        self._mujoco, self._model, self._data = mujoco, model, mujoco.MjData(model)
        joints = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
        ids = {side: [model.joint(f"vx300s_{side}/{joint}").id for joint in joints] for side in SIDES}
        self._qpos = {side: model.jnt_qposadr[ids[side]] for side in SIDES}
        self._dofs = {side: model.jnt_dofadr[ids[side]] for side in SIDES}
        self._sites = {side: model.site(f"cali_{side}_site1").id for side in SIDES}

    def update(self, joints: dict[str, np.ndarray]) -> dict[str, Hand]:
        """Take over each arm's joint positions (6,), radians, and return where the hands are."""
        for side in SIDES:
            self._data.qpos[self._qpos[side]] = joints[side]
        self._mujoco.mj_kinematics(self._model, self._data)
        self._mujoco.mj_comPos(self._model, self._data)
        return {
            side: Hand(
                self._data.site_xpos[self._sites[side]].copy(),
                self._data.site_xmat[self._sites[side]].reshape(3, 3).copy(),
            )
            for side in SIDES
        }

    def joint_move(self, side: str, hand_move: np.ndarray) -> np.ndarray:
        """Return the change of an arm's joints (6,), radians, for a small move of its hand.

        Args:
            side: The arm.
            hand_move: Translation (3, metres) and rotation vector (3, radians), both in the world frame.
        """
        jacobian = np.zeros((6, self._model.nv))
        self._mujoco.mj_jacSite(self._model, self._data, jacobian[:3], jacobian[3:], self._sites[side])
        arm = jacobian[:, self._dofs[side]]
        return arm.T @ np.linalg.solve(arm @ arm.T + DAMPING**2 * np.eye(6), hand_move)


class AlohaExpert(ABC):
    """A demonstrator with two hands, whose recorded actions carry noise.

    Args:
        seed: Decides the noise.
    """

    NOISE = (0.015, 0.1)  # what one unit of the recorded noise moves and turns a hand by (metres, radians)

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def reset(self, env: gymnasium.Env) -> None:
        """Start the noise of this expert's seed from its beginning."""
        self._kinematics = Kinematics(env.unwrapped.model)  # pyright: ignore[reportAttributeAccessIssue] (`AlohaEnv`'s)
        self._commands: dict[str, np.ndarray] = {}
        self._noise = {side: BurstNoise((self._seed, index), size=6) for index, side in enumerate(SIDES)}

    def act(self, observation: dict[str, Any], info: dict[str, Any]) -> np.ndarray:
        """Return the noisy action, float32 (14,)."""
        arms = dict(zip(SIDES, observation["agent_pos"].astype(np.float64).reshape(2, 7), strict=True))
        hands = self._kinematics.update({side: arms[side][:6] for side in SIDES})
        goals = self._decide(hands, {side: float(arms[side][6]) for side in SIDES}, info)
        action = []
        for side in SIDES:
            goal, gripper = goals[side]
            joints = arms[side][:6]
            command = self._commands.get(side, joints) + self._kinematics.joint_move(side, _move(hands[side], goal))
            self._commands[side] = np.clip(command, joints - LONGEST_LEAD, joints + LONGEST_LEAD)
            noise = self._kinematics.joint_move(side, self._noise[side].draw() * np.repeat(self.NOISE, 3))
            action += [*(self._commands[side] + noise), gripper]
        low, high = np.tile(JOINT_LIMITS, (2, 1)).T
        return np.clip(np.array(action, np.float32), low, high)

    @abstractmethod
    def _decide(self, hands: dict[str, Hand], openings: dict[str, float], info: dict[str, Any]) -> Goals:
        """Return where each hand shall go and how far its gripper shall open.

        Args:
            hands: Where the hands are.
            openings: How far the grippers are open, 0 to 1.
            info: The environment's.
        """


def _move(hand: Hand, goal: Hand) -> np.ndarray:
    """Return how the commanded pose moves in a step (6,): translation (metres) and rotation vector (radians)."""
    move = GAIN * (goal.position - hand.position)
    # The rotation vector of a small rotation; of a large one the direction is right, and that is enough.
    turn = GAIN * 0.5 * np.cross(hand.rotation, goal.rotation, axis=0).sum(axis=1)
    move *= min(1.0, LONGEST_MOVE / max(float(np.linalg.norm(move)), 1e-9))
    turn *= min(1.0, LARGEST_TURN / max(float(np.linalg.norm(turn)), 1e-9))
    return np.concatenate([move, turn])


# The funnel (metres): within this distance beside a grasp's vertical go to the grasp, further out stay above a cone.
FUNNEL_RADIUS, FUNNEL_SLOPE, FUNNEL_HEIGHT = 0.006, 3.0, 0.10
# The fingers close when the grasp is this close beside and below or above (metres), and stay closed in the wider region.
GRASP_RADIUS, HOLD_RADIUS = 0.010, 0.03
GRASP_HEIGHT, HOLD_HEIGHT = 0.008, 0.03
CLOSING_OPENING = 0.85


def grasp(hand: Hand, opening: float, place: np.ndarray) -> tuple[np.ndarray, float]:
    """Return where a hand shall go to take something from above, and how far its gripper shall open.

    Args:
        hand: Where it is.
        opening: How far its gripper is open, 0 to 1.
        place: Where the point between the finger tips shall be (3,), metres.
    """
    to_place = place - hand.position
    beside = float(np.linalg.norm(to_place[:2]))
    if is_held(hand, opening, place):
        return place, CLOSED
    height = np.clip(FUNNEL_SLOPE * (beside - FUNNEL_RADIUS), 0.0, FUNNEL_HEIGHT)
    return place + [0.0, 0.0, height], OPEN


def is_held(hand: Hand, opening: float, place: np.ndarray) -> bool:
    """Whether the fingers shall close, or stay closed, around a place."""
    to_place = place - hand.position
    is_closing = opening < CLOSING_OPENING
    radius, height = (HOLD_RADIUS, HOLD_HEIGHT) if is_closing else (GRASP_RADIUS, GRASP_HEIGHT)
    return bool(np.linalg.norm(to_place[:2]) < radius and abs(to_place[2]) < height)


class TransferCubeExpert(AlohaExpert):
    """The right hand takes the cube from the table and holds it up in the middle; the left hand comes and takes it."""

    MEETING = np.array([0.0, 0.5, 0.25])
    WAITING = np.array([-0.14, 0.5, 0.25])
    HELD_OPENING = 0.68  # the fingers stop at 0.61
    # The left hand sets out when the cube is this close to the meeting place, and takes it where it is.
    MEETING_RADIUS = 0.03
    TAKING_RADIUS = 0.012  # the left fingers close when the cube's middle is this close to the point between them

    def _decide(self, hands: dict[str, Hand], openings: dict[str, float], info: dict[str, Any]) -> Goals:
        cube = info["object_pose"][:3]
        right, right_gripper = grasp(hands["right"], openings["right"], cube)
        if right_gripper == CLOSED and openings["right"] < self.HELD_OPENING:
            right = hands["right"].position + self.MEETING - cube
        left, left_gripper = self.WAITING, OPEN
        if np.linalg.norm(cube - self.MEETING) < self.MEETING_RADIUS:
            left = cube
            if np.linalg.norm(cube - hands["left"].position) < self.TAKING_RADIUS:
                left_gripper = CLOSED
        return {
            "left": (Hand(left, hand_rotation("left", pitch=0.0, roll=np.pi / 2)), left_gripper),
            "right": (Hand(right, hand_rotation("right", PITCH_DOWN)), right_gripper),
        }


class InsertionExpert(AlohaExpert):
    """Each hand takes its thing near the middle; both hold theirs up in line, and the peg goes into the socket."""

    NOISE = (0.008, 0.05)  # a peg held by 2 N slips when it is jerked
    # Where the things are held, as seen from their middles (metres).
    PEG_GRASP = np.array([0.005, 0.0, 0.0])
    SOCKET_GRASP = np.array([-0.01, 0.0, 0.0])
    SOCKET_PLACE = np.array([-0.06, 0.5, 0.2])
    # From the socket's middle to the peg's, before it goes in and when its tip has reached the pin (metres).
    BEFORE = np.array([0.15, 0.0, 0.0])
    INSIDE = np.array([0.09, 0.0, 0.0])
    PEG_HELD_OPENING, SOCKET_HELD_OPENING = 0.43, 0.73  # the fingers stop at 0.36 and 0.66
    READY_RADIUS = 0.02  # how close to its place the socket is when the peg sets out for it
    # The peg goes in as long as it is this close to the socket's axis (metres): its walls leave 8 mm.
    IN_LINE = 0.006

    def _decide(self, hands: dict[str, Hand], openings: dict[str, float], info: dict[str, Any]) -> Goals:
        peg, socket = info["object_pose"][:3], info["goal_pose"][:3]
        right, right_gripper = grasp(hands["right"], openings["right"], peg + self.PEG_GRASP)
        left, left_gripper = grasp(hands["left"], openings["left"], socket + self.SOCKET_GRASP)
        if left_gripper == CLOSED and openings["left"] < self.SOCKET_HELD_OPENING:
            left = hands["left"].position + self.SOCKET_PLACE - socket
        if right_gripper == CLOSED and openings["right"] < self.PEG_HELD_OPENING:
            place = self.SOCKET_PLACE + self.BEFORE
            if np.linalg.norm(socket - self.SOCKET_PLACE) < self.READY_RADIUS:
                is_in_line = np.linalg.norm((peg - socket)[1:]) < self.IN_LINE
                place = socket + (self.INSIDE if is_in_line else self.BEFORE)
            right = hands["right"].position + place - peg
        return {
            "left": (Hand(left, hand_rotation("left", PITCH_DOWN)), left_gripper),
            "right": (Hand(right, hand_rotation("right", PITCH_DOWN)), right_gripper),
        }


ALOHA_EXPERTS: dict[str, type[AlohaExpert]] = {"transfer_cube": TransferCubeExpert, "insertion": InsertionExpert}
