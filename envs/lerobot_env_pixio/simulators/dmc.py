"""The DeepMind Control Suite's tasks that encoders are compared on."""

from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from lerobot_env_pixio.perturbations.perturbations import Surroundings
from lerobot_env_pixio.rendering.frames import explains_missing_gl
from lerobot_env_pixio.simulators.camera_env import Interface, MujocoCameraEnv
from lerobot_env_pixio.simulators.tasks import look_up

if TYPE_CHECKING:
    import mujoco
    from dm_control.rl.control import Environment

EPISODE_STEPS = 1000  # of every task of the suite, before actions are repeated

# The instruction, the number of actions, and the control rate (Hz).
TASKS = {
    "walker_stand": ("stand upright", 6, 40),
    "walker_walk": ("walk", 6, 40),
    "reacher_easy": ("put the finger on the target", 2, 50),
    "cheetah_run": ("run", 6, 100),
    "finger_spin": ("spin the body", 2, 50),
}
CAMERA = "camera_0"


class DmcEnv(MujocoCameraEnv):
    """A task of the control suite, seen by its first camera alone.

    Action: float32 in [-1, 1], executed `action_repeat` times. ``agent_pos``: one 0, since these tasks give a policy no
    proprioception. Reward: the suite's, at most 1, summed over the repeats. There is no success: what counts is the return, at
    most 1000.

    Args:
        task: Name in `TASKS`.
        action_repeat: Steps of the suite in one step.
        settings: Further arguments of `CameraEnv`.

    Raises:
        ValueError: A name is unknown; or the rate is not the suite's over the repeats.
    """

    simulator, tasks = "the control suite", TASKS

    def __init__(self, task: str, action_repeat: int, **settings: Any) -> None:  # noqa: ANN401 (passed on)
        description, actions, rate = look_up("task", task, TASKS)
        if action_repeat < 1:
            raise ValueError(f"env.action_repeat must be a whole number of at least 1, got {action_repeat}")
        self.rate = max(rate // action_repeat, 1)
        interface = Interface(
            description=description,
            cameras=(CAMERA,),
            state_space=spaces.Box(-1.0, 1.0, (1,), np.float32),
            state_names=("none.pos",),
            action_space=spaces.Box(-1.0, 1.0, (actions,), np.float32),
            action_names=tuple(f"actuator_{number}.pos" for number in range(actions)),
            control_mode="absolute efforts of the actuators",
        )
        super().__init__(task, interface, ends_at_success=False, **settings)
        self._action_repeat = action_repeat

    def _build(self) -> "Environment":
        with explains_missing_gl():
            from dm_control import suite
        domain, task = self.task.split("_")
        return suite.load(domain, task)

    def _mujoco(self) -> "tuple[mujoco.MjModel, mujoco.MjData]":
        physics = self.simulation.physics
        return physics.model.ptr, physics.data.ptr

    def _begin(self, seed: int) -> None:
        self.simulation.task._random = np.random.RandomState(seed)
        self.simulation.reset()

    def _execute(self, action: np.ndarray) -> tuple[float, bool]:
        reward = 0.0
        for _ in range(self._action_repeat):
            with self.simulation.physics.suppress_physics_errors():  # a broken simulation ends the episode
                step = self.simulation.step(np.asarray(action, np.float64))
            reward += step.reward or 0.0
            if step.last():
                break
        return reward, False

    def _surroundings(self) -> Surroundings:
        return Surroundings(self.task, self.model, self.data, scene_cameras=(0,))

    def _frame(self, camera: str) -> np.ndarray:
        return super()._frame(self.model.camera(0).name)

    def _proprioception(self) -> np.ndarray:
        return np.zeros(1, np.float32)

    def _knowledge(self) -> dict[str, Any]:
        return {"full_state": np.array(self.simulation.physics.get_state())}
