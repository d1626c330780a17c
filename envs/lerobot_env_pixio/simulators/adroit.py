"""Adroit: a hand of 24 joints turns a pen, or carries a ball to where it shall be (gymnasium-robotics)."""

import contextlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from lerobot_env_pixio.perturbations.perturbations import Surroundings
from lerobot_env_pixio.simulators.camera_env import Interface, MujocoCameraEnv
from lerobot_env_pixio.simulators.tasks import look_up

if TYPE_CHECKING:
    import gymnasium
    import mujoco


@dataclass(frozen=True)
class AdroitTask:
    """One of the tasks.

    Attributes:
        description: The instruction in words.
        env_class: Name of gymnasium-robotics' class.
        joints: Of the hand and, where it moves, of the arm: as many actions, and first places of the full state.
        steps_at_goal: An episode is a success if the goal is met in more steps than these (CortexBench's rule).
    """

    description: str
    env_class: str
    joints: int
    steps_at_goal: int


TASKS = {
    "pen": AdroitTask("turn the pen as the other one lies", "AdroitHandPenEnv", 24, 20),
    "relocate": AdroitTask("carry the ball to the green sphere", "AdroitHandRelocateEnv", 30, 25),
}
_CAMERAS = ("vil_camera", "fixed")


class AdroitEnv(MujocoCameraEnv):
    """One of gymnasium-robotics' Adroit tasks, its objects and goal placed anew by every reset's seed.

    Action: float32 (24,) or (30,) in [-1, 1], the joints' targets between their limits. ``agent_pos``: where the joints are, in
    radians and, of an arm that slides, metres. Reward: gymnasium-robotics' dense one. ``info["full_state"]`` is its own
    observation (45,) or (39,), which the public experts read. Every episode runs to its length: the pen has to stay as it
    shall lie, so the steps at the goal are counted.

    Args:
        task: Name in `TASKS`.
        settings: Further arguments of `CameraEnv`.

    Raises:
        ValueError: A name is unknown, or the rate is not 100 Hz.
    """

    simulator, rate, tasks = "Adroit", 100, TASKS  # 5 steps of 2 ms

    def __init__(self, task: str, **settings: Any) -> None:  # noqa: ANN401 (passed on)
        self._spec = look_up("task", task, TASKS)
        names = tuple(f"joint_{number}.pos" for number in range(self._spec.joints))
        interface = Interface(
            description=self._spec.description,
            cameras=_CAMERAS,
            state_space=spaces.Box(-4.0, 4.0, (self._spec.joints,), np.float32),  # limits are soft
            state_names=names,
            action_space=spaces.Box(-1.0, 1.0, (self._spec.joints,), np.float32),
            action_names=names,
            control_mode="absolute positions of the joints, as shares of their ranges",
        )
        super().__init__(task, interface, ends_at_success=False, **settings)
        self._full_state = np.zeros(0)

    def _build(self) -> "gymnasium.Env":
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # it tells of rewards that nobody reads here
                from gymnasium_robotics.envs import adroit_hand
        except ModuleNotFoundError as error:
            raise ValueError(
                "Adroit's tasks need gymnasium-robotics, which is not installed: pip install 'lerobot_env_pixio[adroit]'"
            ) from error
        return getattr(adroit_hand, self._spec.env_class)()

    def _mujoco(self) -> "tuple[mujoco.MjModel, mujoco.MjData]":
        return self.simulation.model, self.simulation.data

    def _begin(self, seed: int) -> None:
        self._full_state, _ = self.simulation.reset(seed=seed)

    def _execute(self, action: np.ndarray) -> tuple[float, bool]:
        self._full_state, reward, _, _, info = self.simulation.step(np.asarray(action, np.float64))
        return float(reward), bool(info["success"])

    def _succeeded(self, is_done: bool) -> bool:
        return self._steps_done > self._spec.steps_at_goal

    def _surroundings(self) -> Surroundings:
        cameras = tuple(self.model.camera(name).id for name in _CAMERAS)
        return Surroundings(self.task, self.model, self.data, scene_cameras=cameras)

    def _proprioception(self) -> np.ndarray:
        return self._full_state[: self._spec.joints].astype(np.float32)

    def _knowledge(self) -> dict[str, Any]:
        return {"full_state": self._full_state.copy()}
