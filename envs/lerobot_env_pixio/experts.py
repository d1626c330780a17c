"""Scripted demonstrators.

They act on the simulator's state, but every choice of theirs can be made out from a camera frame and the proprioception
of the same instant (no timers, no hidden phases), so that a policy without memory can imitate them.
"""

from typing import Any, Protocol

import gymnasium
import numpy as np


class Expert(Protocol):
    """What makes demonstrations of a task."""

    def reset(self, env: gymnasium.Env) -> None:
        """Prepare for an episode of an environment that has just been reset."""
        ...

    def act(self, observation: dict[str, Any], info: dict[str, Any]) -> np.ndarray:
        """Return the action to execute and record, float32 (A,)."""
        ...


class LiftExpert:
    """Lifts the cube: down a funnel around it, close when it is between the fingers, up as the fingers meet it.

    Bursts of random displacement are part of the returned action; what follows a burst is the recovery from it.

    Args:
        seed: Decides the noise.
    """

    # How far ahead of the end effector the commanded position lies, as a multiple of the way still to go, and the action
    # units in one metre and one radian (robosuite's OSC_POSE: 1 is 0.05 m and 0.5 rad).
    POSITION_GAIN = 2.0 / 0.05
    ROTATION_GAIN = 1.0 / 0.5

    # The funnel (metres): within this distance beside the cube's axis go to the cube, further out stay above a cone.
    FUNNEL_RADIUS = 0.008
    FUNNEL_SLOPE = 3.0
    FUNNEL_HEIGHT = 0.08
    # The fingers close when the cube's centre is this close beside and below the point between their tips (metres), and stay
    # closed in the wider region: a cube that slips a little must not be dropped.
    GRASP_RADIUS, HOLD_RADIUS = 0.014, 0.022
    GRASP_HEIGHT, HOLD_HEIGHT = 0.008, 0.018
    CLOSING_OPENING = 0.066
    # Upward action as the opening between the fingers (metres) shrinks: none before they can have met the cube held by
    # its corners (59 mm), full when they hold it by its sides (42 mm).
    LIFT_OPENING = (0.064, 0.044)

    # Noise: chance that a burst starts in a step, its length in steps, its size in action units; and the noise of every step.
    BURST_CHANCE = 0.06
    BURST_STEPS = (2, 5)
    BURST_SIZE = (0.5, 1.0)
    STEP_NOISE = 0.05

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def reset(self, env: gymnasium.Env) -> None:
        """Start the noise of this expert's seed from its beginning."""
        self._rng = np.random.default_rng(self._seed)
        self._burst = np.zeros(6)
        self._burst_steps_left = 0

    def act(self, observation: dict[str, Any], info: dict[str, Any]) -> np.ndarray:
        """Return the noisy action, float32 (7,)."""
        action = self.clean_action(observation["agent_pos"].astype(np.float64), info["object_pose"][:3])
        action[:6] += self._noise()
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    def clean_action(self, agent_pos: np.ndarray, cube_position: np.ndarray) -> np.ndarray:
        """Return the action without noise, before clipping.

        Args:
            agent_pos: The environment's proprioception (9,).
            cube_position: Centre of the cube (3,), metres.
        """
        to_cube = cube_position - agent_pos[:3]
        distance_beside = float(np.linalg.norm(to_cube[:2]))
        opening = agent_pos[7] - agent_pos[8]

        height = np.clip(self.FUNNEL_SLOPE * (distance_beside - self.FUNNEL_RADIUS), 0.0, self.FUNNEL_HEIGHT)
        move = self.POSITION_GAIN * (to_cube + [0.0, 0.0, height])
        gripper = -1.0
        is_closing = opening < self.CLOSING_OPENING
        radius = self.HOLD_RADIUS if is_closing else self.GRASP_RADIUS
        if distance_beside < radius and -to_cube[2] < (self.HOLD_HEIGHT if is_closing else self.GRASP_HEIGHT):
            gripper = 1.0
            lift = np.interp(opening, self.LIFT_OPENING[::-1], (1.0, 0.0))
            move[2] = lift + (1.0 - lift) * self.POSITION_GAIN * to_cube[2]

        # Axis-angle (small angles) from the hand's orientation to straight down, quaternion (1, 0, 0, 0) in x y z w.
        x, y, z, w = agent_pos[3:7]
        turn = self.ROTATION_GAIN * 2.0 * np.sign(x) * np.array([w, z, -y])
        return np.concatenate([move, turn, [gripper]])

    def _noise(self) -> np.ndarray:
        if self._burst_steps_left == 0 and self._rng.random() < self.BURST_CHANCE:
            self._burst_steps_left = int(self._rng.integers(*self.BURST_STEPS))
            direction = self._rng.normal(size=6)
            self._burst = self._rng.uniform(*self.BURST_SIZE) * direction / np.linalg.norm(direction[:3])
            self._burst[3:] *= 0.3
        noise = self._rng.normal(scale=self.STEP_NOISE, size=6)
        if self._burst_steps_left > 0:
            self._burst_steps_left -= 1
            noise += self._burst
        return noise
