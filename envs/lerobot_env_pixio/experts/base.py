"""What the scripted demonstrators share: recorded noise, the way through a funnel, turns of the hand."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium
import numpy as np
from scipy.spatial.transform import Rotation

from lerobot_env_pixio.simulators.tasks import ROBOTS

# Chance that a burst starts in a step, its length in steps, and its size in units of the action.
BURST_CHANCE = 0.06
BURST_STEPS = (2, 5)
BURST_SIZE = (0.5, 1.0)
STEP_NOISE = 0.05
# What follows the translation in an action, a rotation, is disturbed less.
REST_SHARE = 0.3


class Expert(Protocol):
    """What makes demonstrations of a task.

    One that also has an attribute `errs`, bool, says by it whether the action that it has just returned is a mistake on
    purpose: it is recorded, and not to be imitated; what follows it is the way out. None says that it never errs.
    """

    def reset(self, env: gymnasium.Env) -> None:
        """Prepare for an episode of an environment that has just been reset."""
        ...

    def act(self, observation: dict[str, Any], info: dict[str, Any]) -> np.ndarray:
        """Return the action to execute and record, float32 (A,)."""
        ...


class BurstNoise:
    """Noise to add to successive actions; what follows a burst in a demonstration is the recovery from it.

    Args:
        seed: Decides the noise; several numbers for one of several noises of an episode.
        size: Length of the noise: a translation (3) and whatever else of the action is disturbed with it.
    """

    def __init__(self, seed: int | tuple[int, ...], size: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._burst = np.zeros(size)
        self._burst_steps_left = 0

    def draw(self) -> np.ndarray:
        """Return the next step's noise (size,), in units of the action."""
        size = len(self._burst)
        if self._burst_steps_left == 0 and self._rng.random() < BURST_CHANCE:
            self._burst_steps_left = int(self._rng.integers(*BURST_STEPS))
            direction = self._rng.normal(size=size)
            self._burst = self._rng.uniform(*BURST_SIZE) * direction / np.linalg.norm(direction[:3])
            self._burst[3:] *= REST_SHARE
        noise = self._rng.normal(scale=STEP_NOISE, size=size)
        if self._burst_steps_left > 0:
            self._burst_steps_left -= 1
            noise += self._burst
        return noise


@dataclass
class Missed:
    """A grasp that misses: the expert takes the thing to be beside where it is, and, once it has closed, to be in its hand.

    Attributes:
        below: It begins when the open hand comes as close above the thing as this, metres.
        offset: From the thing to where it is taken to be (3,), metres.
        steps_left: How long it is still believed.
        in_hand: From the hand to the thing that it believes to hold (3,), metres; None before it closes.
    """

    below: float
    offset: np.ndarray
    steps_left: int
    in_hand: np.ndarray | None = None
    has_begun: bool = False

    # The thing is taken to be this far beside and above where it is, metres, for so many steps.
    BESIDE, ABOVE, STEPS = (0.015, 0.045), (0.0, 0.025), (12, 50)
    # It begins in a hand this close above and beside the thing, metres.
    BELOW, NEAR = (0.015, 0.05), 0.10

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Missed":
        """Return one by chance."""
        angle, beside = rng.uniform(-np.pi, np.pi), rng.uniform(*cls.BESIDE)
        offset = np.array([beside * np.cos(angle), beside * np.sin(angle), rng.uniform(*cls.ABOVE)])
        return cls(rng.uniform(*cls.BELOW), offset, int(rng.integers(*cls.STEPS)))

    def believe(self, hand: np.ndarray, thing: np.ndarray, is_open: bool, is_closed: bool) -> np.ndarray | None:
        """Return where the thing is taken to be (3,), metres; None while nothing is wrong."""
        if not self.has_begun:
            above, beside = hand[2] - thing[2], float(np.linalg.norm((hand - thing)[:2]))
            self.has_begun = is_open and above < self.below and beside < self.NEAR
        if not self.has_begun or self.steps_left <= 0:
            return None
        self.steps_left -= 1
        if is_closed and self.in_hand is None:
            self.in_hand = thing + self.offset - hand
        return thing + self.offset if self.in_hand is None else hand + self.in_hand


@dataclass(frozen=True)
class Strayed:
    """A hand that goes astray: to somewhere around the thing or its goal, perhaps with the fingers the wrong way.

    Attributes:
        begins: The step in which it does.
        steps: For how long.
        is_at_goal: Whether it goes to the goal, where there is one, not to the thing.
        offset: From there to where it goes (3,), metres.
        gripper: The gripper's action; None leaves it as it is.
    """

    begins: int
    steps: int
    is_at_goal: bool
    offset: np.ndarray
    gripper: float | None

    # Steps until it begins and for which it lasts, how far beside and above the place it leads (metres), and how often the
    # fingers are told something; and how often an episode has a second one.
    WAIT, STEPS = (5, 90), (6, 16)
    BESIDE, ABOVE = 0.08, (0.0, 0.12)
    FINGERS_CHANCE, AGAIN_CHANCE = 0.25, 0.5

    @classmethod
    def draw(cls, rng: np.random.Generator, after: int) -> "Strayed":
        """Return one by chance that begins after a step."""
        angle, beside = rng.uniform(-np.pi, np.pi), cls.BESIDE * np.sqrt(rng.random())
        return cls(
            begins=after + int(rng.integers(*cls.WAIT)),
            steps=int(rng.integers(*cls.STEPS)),
            is_at_goal=rng.random() < 0.5,
            offset=np.array([beside * np.cos(angle), beside * np.sin(angle), rng.uniform(*cls.ABOVE)]),
            gripper=float(rng.choice([-1.0, 1.0])) if rng.random() < cls.FINGERS_CHANCE else None,
        )

    def way(self, hand: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        """Return the way (3,) that a hand (3,) goes, metres."""
        pose = info.get("goal_pose", info["object_pose"]) if self.is_at_goal else info["object_pose"]
        return pose[:3] + self.offset - hand


class NoisyExpert(ABC):
    """A demonstrator whose recorded actions carry noise.

    Bursts of random displacement are part of the returned action; what follows a burst is the recovery from it. In some
    episodes the first grasp misses on purpose (`Missed`), and what follows is to let go and to try again; and now and then the
    hand goes astray (`Strayed`), and what follows is the way from there.

    Args:
        seed: Decides the noise.
        robot: Name in `ROBOTS`: how far its fingers are apart follows from the gripper's joints.
        mistakes: Share of the episodes in which the first grasp misses, and share of those in which the hand goes astray.

    Raises:
        ValueError: The robot's fingers cannot close on what the task has them hold.
    """

    # What the fingers hold (metres), measured along their line.
    HELD_WIDTH: float

    # How far ahead of the end effector the commanded position lies, as a multiple of the way still to go, and the action
    # units in one metre and one radian (robosuite's OSC_POSE: 1 is 0.05 m and 0.5 rad).
    POSITION_GAIN = 2.0 / 0.05
    ROTATION_GAIN = 1.0 / 0.5

    # The funnel (metres): within this distance beside the goal's axis go to the goal, further out stay above a cone.
    FUNNEL_RADIUS = 0.008
    FUNNEL_SLOPE = 3.0
    FUNNEL_HEIGHT = 0.08
    # A hand that shall come turned does not go down before it is: one radian counts as this many metres beside the goal.
    YAW_RADIUS = 0.04

    # The fingers close when the goal is this close beside and below the point between their tips (metres), and stay closed in
    # the wider region, since what slips a little must not be dropped. They are on their way to close, or closed, when they
    # are less than this far apart (metres).
    GRASP_RADIUS, HOLD_RADIUS = 0.010, 0.025
    GRASP_HEIGHT, HOLD_HEIGHT = 0.010, 0.030
    CLOSING_OPENING: float
    # Distance between fingers that can have met the thing, and between those that hold it (metres).
    HOLD_OPENING: tuple[float, float]
    # They close in a hand that is turned as far from the way it shall be as this (radians), and no further.
    GRASP_YAW = 0.2

    CAN_MISS = True
    """Whether what it takes can be missed and taken again."""

    def __init__(self, seed: int, robot: str = "Panda", mistakes: float = 0.0) -> None:
        self._seed = seed
        self._mistakes = mistakes
        self._missed: Missed | None = None
        self._strayed: Strayed | None = None
        self.errs: bool | None = None
        self._robot = ROBOTS[robot]
        if self._robot.narrowest > self.HELD_WIDTH:
            able = ", ".join(name for name, spec in ROBOTS.items() if spec.narrowest <= self.HELD_WIDTH)
            raise ValueError(
                f"the simulated fingers of {robot} stay {1000 * self._robot.narrowest:.0f} mm apart when they close, and "
                f"{type(self).__name__} holds what is {1000 * self.HELD_WIDTH:.0f} mm wide: choose a robot among {able}"
            )

    def reset(self, env: gymnasium.Env) -> None:
        """Start the noise of this expert's seed from its beginning."""
        self._noise = BurstNoise(self._seed, size=6)
        rng = np.random.default_rng((self._seed, 1))  # another stream than the noise's
        self._missed = Missed.draw(rng) if self.CAN_MISS and rng.random() < self._mistakes else None
        self._straying = np.random.default_rng((self._seed, 3))
        self._step = 0
        self._strayed = Strayed.draw(self._straying, after=0) if self._straying.random() < self._mistakes else None
        self._can_stray_again = self._straying.random() < Strayed.AGAIN_CHANCE
        self.errs = False if self._mistakes else None

    def act(self, observation: dict[str, Any], info: dict[str, Any]) -> np.ndarray:
        """Return the noisy action, float32 (7,); `errs` says whether it is a mistake on purpose."""
        agent_pos = observation["agent_pos"][: self._robot.state_size].astype(np.float64)
        action = self._astray(agent_pos, info)
        if action is None:
            action = self._on_the_way(agent_pos, info)
        action[:6] += self._noise.draw()
        self._step += 1
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    def _astray(self, agent_pos: np.ndarray, info: dict[str, Any]) -> np.ndarray | None:
        """Return the action (7,) of a hand that goes astray in this step; None while it does not."""
        strayed = self._strayed
        if strayed is None or self._step < strayed.begins:
            return None
        if self._step == strayed.begins + strayed.steps - 1:
            self._strayed = Strayed.draw(self._straying, after=self._step) if self._can_stray_again else None
            self._can_stray_again = False
        self.errs = True
        if strayed.gripper is not None:
            self._gripper = strayed.gripper
        return np.concatenate([self.POSITION_GAIN * strayed.way(agent_pos[:3], info), np.zeros(3), [self._gripper]])

    def _on_the_way(self, agent_pos: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        """Return the action (7,) towards what the task wants, or towards what is taken for it."""
        self.errs = False if self._mistakes else None
        if self._missed is not None:
            opening = self._robot.finger_opening(agent_pos[7:])
            is_open, is_closed = opening >= self.CLOSING_OPENING, opening < self.HOLD_OPENING[0]
            believed = self._missed.believe(agent_pos[:3], info["object_pose"][:3], is_open, is_closed)
            self.errs = believed is not None
            if believed is not None:
                info = {**info, "object_pose": np.concatenate([believed, info["object_pose"][3:]])}
        action = self._decide(agent_pos, info)
        self._gripper = action[6]
        return action

    @abstractmethod
    def _decide(self, agent_pos: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        """Return the action without noise, before clipping (7,)."""

    def _opening(self, agent_pos: np.ndarray) -> float:
        """Return the distance between the fingers (metres); fingers that are taken to hold something are as far as it is wide."""
        opening = self._robot.finger_opening(agent_pos[7:])
        is_misled = bool(self.errs) and self._missed is not None and self._missed.in_hand is not None
        return max(opening, self.HOLD_OPENING[1]) if is_misled else opening

    def _hold(self, opening: float) -> float:
        """Return how far the fingers hold the thing: 0 before they can have met it, 1 when they hold it."""
        return float(np.interp(opening, self.HOLD_OPENING[::-1], (1.0, 0.0)))

    def _above(self, to_goal: np.ndarray, funnel_height: float = FUNNEL_HEIGHT, yaw: float = 0.0) -> np.ndarray:
        """Return the way (3,), metres, to where the funnel around a goal is entered, or down it.

        Args:
            to_goal: The way to the goal (3,), metres.
            funnel_height: How high above the goal the funnel ends, metres.
            yaw: The turn about the vertical that the hand still has to make, radians.
        """
        distance_beside = float(np.hypot(np.linalg.norm(to_goal[:2]), self.YAW_RADIUS * yaw))
        height = np.clip(self.FUNNEL_SLOPE * (distance_beside - self.FUNNEL_RADIUS), 0.0, funnel_height)
        return to_goal + [0.0, 0.0, height]

    def _is_between_fingers(self, to_grasp: np.ndarray, opening: float, yaw: float = 0.0) -> bool:
        """Whether the fingers shall close, or stay closed, around a point.

        Args:
            to_grasp: The way there (3,), metres.
            opening: Distance between the fingers, metres.
            yaw: The turn about the vertical that the hand still has to make before it closes, radians.
        """
        is_closing = opening < self.CLOSING_OPENING
        radius = self.HOLD_RADIUS if is_closing else self.GRASP_RADIUS
        height = self.HOLD_HEIGHT if is_closing else self.GRASP_HEIGHT
        is_turned = is_closing or abs(yaw) < self.GRASP_YAW
        return bool(float(np.linalg.norm(to_grasp[:2])) < radius and -to_grasp[2] < height and is_turned)

    def _up_first(self, way: np.ndarray, band: float) -> np.ndarray:
        """Return the move (3,) along a way (3,) that keeps from going sideways while the goal lies a band (metres) above."""
        move = np.clip(self.POSITION_GAIN * way, -1.0, 1.0)
        move[:2] *= np.clip(1.0 - way[2] / band, 0.0, 1.0)
        return move

    def _turn_down(self, agent_pos: np.ndarray) -> np.ndarray:
        """Return the turn (3,) to straight down, the fingers beside each other along the world's y axis."""
        # Axis-angle (small angles) from the hand's orientation to straight down, quaternion (1, 0, 0, 0) in x y z w.
        x, y, z, w = agent_pos[3:7]
        return self.ROTATION_GAIN * 2.0 * np.sign(x) * np.array([w, z, -y])

    def _turn_to(self, agent_pos: np.ndarray, goal: Rotation) -> np.ndarray:
        """Return the turn (3,) to an orientation of the hand, however far it is."""
        return self.ROTATION_GAIN * (goal * Rotation.from_quat(agent_pos[3:7]).inv()).as_rotvec()


def pointing_down(yaw: float) -> Rotation:
    """Return the orientation of a hand that points down, its fingers' line turned by a yaw (radians)."""
    return Rotation.from_quat([np.cos(yaw / 2), np.sin(yaw / 2), 0.0, 0.0])


def hand_yaw(agent_pos: np.ndarray) -> float:
    """Return how far the hand is turned about the vertical from `pointing_down` of zero (radians), within half a turn."""
    return 2.0 * float(np.arctan2(np.sign(agent_pos[3]) * agent_pos[4], abs(agent_pos[3])))


def direction(axis: np.ndarray) -> float:
    """Return the angle about the vertical (radians) from the x axis to an axis (3,)."""
    return float(np.arctan2(axis[1], axis[0]))


def wrap(angle: float, period: float) -> float:
    """Return the angle (radians) modulo a period, within half a period of zero."""
    return (angle + period / 2) % period - period / 2
