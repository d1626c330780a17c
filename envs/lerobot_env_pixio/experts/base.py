"""What the scripted demonstrators share: recorded noise, the way through a funnel, turns of the hand."""

from abc import ABC, abstractmethod
from typing import Any, Protocol

import gymnasium
import numpy as np

from lerobot_env_pixio.noise import BurstNoise
from lerobot_env_pixio.tasks import ROBOTS


class Expert(Protocol):
    """What makes demonstrations of a task."""

    def reset(self, env: gymnasium.Env) -> None:
        """Prepare for an episode of an environment that has just been reset."""
        ...

    def act(self, observation: dict[str, Any], info: dict[str, Any]) -> np.ndarray:
        """Return the action to execute and record, float32 (A,)."""
        ...


class NoisyExpert(ABC):
    """A demonstrator whose recorded actions carry noise.

    Bursts of random displacement are part of the returned action; what follows a burst is the recovery from it.

    Args:
        seed: Decides the noise.
        robot: Name in `ROBOTS`: how far its fingers are apart follows from the gripper's joints.
    """

    # How far ahead of the end effector the commanded position lies, as a multiple of the way still to go, and the action
    # units in one metre and one radian (robosuite's OSC_POSE: 1 is 0.05 m and 0.5 rad).
    POSITION_GAIN = 2.0 / 0.05
    ROTATION_GAIN = 1.0 / 0.5

    # The funnel (metres): within this distance beside the goal's axis go to the goal, further out stay above a cone.
    FUNNEL_RADIUS = 0.008
    FUNNEL_SLOPE = 3.0
    FUNNEL_HEIGHT = 0.08

    def __init__(self, seed: int, robot: str = "Panda") -> None:
        self._seed = seed
        self._robot = ROBOTS[robot]

    def reset(self, env: gymnasium.Env) -> None:
        """Start the noise of this expert's seed from its beginning."""
        self._noise = BurstNoise(self._seed, size=6)

    def act(self, observation: dict[str, Any], info: dict[str, Any]) -> np.ndarray:
        """Return the noisy action, float32 (7,)."""
        action = self._decide(observation["agent_pos"].astype(np.float64), info)
        action[:6] += self._noise.draw()
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    @abstractmethod
    def _decide(self, agent_pos: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        """Return the action without noise, before clipping (7,)."""

    def _opening(self, agent_pos: np.ndarray) -> float:
        """Return the distance between the fingers (metres)."""
        return self._robot.finger_opening(agent_pos[7:])

    def _above(self, to_goal: np.ndarray, funnel_height: float = FUNNEL_HEIGHT) -> np.ndarray:
        """Return the way (3,), metres, to where the funnel around a goal is entered, or down it."""
        distance_beside = float(np.linalg.norm(to_goal[:2]))
        height = np.clip(self.FUNNEL_SLOPE * (distance_beside - self.FUNNEL_RADIUS), 0.0, funnel_height)
        return to_goal + [0.0, 0.0, height]

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

    def _turn_to(self, agent_pos: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """Return the turn (3,) to an orientation of the hand, however far it is.

        Args:
            agent_pos: The environment's proprioception (7 + gripper joints,).
            goal: Quaternion (4,) in x y z w, such as that of `pointing_down`.
        """
        now = agent_pos[3:7]
        cosine = float(goal @ now)
        sine = np.sign(cosine) * (now[3] * goal[:3] - goal[3] * now[:3] - np.cross(goal[:3], now[:3]))
        length = float(np.linalg.norm(sine))
        return self.ROTATION_GAIN * 2.0 * np.arctan2(length, abs(cosine)) * sine / max(length, 1e-9)


def pointing_down(yaw: float) -> np.ndarray:
    """Return the quaternion (4,) in x y z w of a hand that points down, its fingers' line turned by a yaw (radians)."""
    return np.array([np.cos(yaw / 2), np.sin(yaw / 2), 0.0, 0.0])


def hand_yaw(agent_pos: np.ndarray) -> float:
    """Return how far the hand is turned about the vertical from `pointing_down` of zero (radians), within half a turn."""
    return 2.0 * float(np.arctan2(np.sign(agent_pos[3]) * agent_pos[4], abs(agent_pos[3])))


def wrap(angle: float, period: float) -> float:
    """Return the angle (radians) modulo a period, within half a period of zero."""
    return (angle + period / 2) % period - period / 2


def rotation_matrix(quaternion: np.ndarray) -> np.ndarray:
    """Return the rotation matrix (3, 3) of a unit quaternion (4,) in x y z w."""
    x, y, z, w = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def quaternion(matrix: np.ndarray) -> np.ndarray:
    """Return a unit quaternion (4,) in x y z w of a rotation matrix (3, 3)."""
    # The columns of 4 q qT, of which the one of the largest entry is the best conditioned.
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = matrix
    outer = np.array(
        [
            [1 + xx - yy - zz, xy + yx, xz + zx, zy - yz],
            [xy + yx, 1 - xx + yy - zz, yz + zy, xz - zx],
            [xz + zx, yz + zy, 1 - xx - yy + zz, yx - xy],
            [zy - yz, xz - zx, yx - xy, 1 + xx + yy + zz],
        ]
    )
    column = outer[:, np.argmax(np.diag(outer))]
    return column / np.linalg.norm(column)


def about_y(angle: float) -> np.ndarray:
    """Return the rotation matrix (3, 3) about the y axis by an angle (radians)."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, 0.0, sine], [0.0, 1.0, 0.0], [-sine, 0.0, cosine]])
