"""PushT: a T to be pushed onto its goal by a round finger, seen from above."""

import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from gymnasium import spaces

from lerobot_env_pixio.perturbations.pusht import PUSHT_LOOKS
from lerobot_env_pixio.simulators.camera_env import NOMINAL, CameraEnv, Interface
from lerobot_env_pixio.simulators.tasks import look_up

if TYPE_CHECKING:
    from gym_pusht.envs.pusht import PushTEnv as Simulation
    from pygame import Surface

WORLD = 512.0  # side of the square that everything happens in


class PushTEnv(CameraEnv):
    """gym-pusht's task.

    Action: float32 (2,), where the finger shall go, from 0 to 512. ``agent_pos``: where it is, in the same units.
    Reward: the share of the goal that the T covers over 0.95, at most 1; success is a share above 0.95. ``info`` has that share
    as ``coverage``, and the T's place and angle (3,) as ``block_pose``.

    Args:
        task: ``PushT``.
        settings: Further arguments of `CameraEnv`; what each perturbation does to a drawing is in `perturbations.pusht`.

    Raises:
        ValueError: A name or the rate is none of these.
    """

    simulator, rate = "PushT", 10
    tasks: ClassVar = {"PushT": None}
    profiles: ClassVar = {"standard": None}

    def __init__(self, task: str, **settings: Any) -> None:  # noqa: ANN401 (passed on)
        look_up("task", task, self.tasks)
        interface = Interface(
            description="push the T-shaped block onto the T-shaped target",
            cameras=("top",),
            state_space=spaces.Box(0.0, WORLD, (2,), np.float32),
            state_names=("x.pos", "y.pos"),
            action_space=spaces.Box(0.0, WORLD, (2,), np.float32),
            action_names=("x.pos", "y.pos"),
            control_mode="absolute position of the finger",
        )
        super().__init__(task, interface, **settings)
        self._coverage = 0.0
        self._changed: Callable[[np.ndarray], np.ndarray] | None = None

    def _build(self) -> "Simulation":
        # It would draw pixels in every step; an observation of its state costs nothing.
        return _import_simulation()(
            obs_type="state", observation_width=self._image_size, observation_height=self._image_size
        )

    def _begin(self, seed: int) -> None:
        self.simulation.reset(seed=seed)
        self._coverage = float(self.simulation._get_coverage())

    def _execute(self, action: np.ndarray) -> tuple[float, bool]:
        _, reward, _, _, info = self.simulation.step(np.asarray(action, np.float64))
        self._coverage = float(info["coverage"])
        return float(reward), bool(info["is_success"])

    def _perturb(self, perturbation: str, rng: np.random.Generator) -> None:
        start = _pixels(self.simulation._draw())
        self._changed = None if perturbation == NOMINAL else PUSHT_LOOKS[perturbation](start, rng)

    def _frame(self, camera: str) -> np.ndarray:
        from pygame import surfarray

        drawing = self.simulation._draw()
        if self._changed is not None:
            drawing = surfarray.make_surface(self._changed(_pixels(drawing)).swapaxes(0, 1))
        return np.asarray(self.simulation._get_img(drawing, self._image_size, self._image_size), np.uint8)

    def _proprioception(self) -> np.ndarray:
        return np.array(self.simulation.agent.position, np.float32)

    def _knowledge(self) -> dict[str, Any]:
        block = self.simulation.block
        return {"coverage": self._coverage, "block_pose": np.array([*block.position, block.angle])}


def _pixels(drawing: "Surface") -> np.ndarray:
    """Return a drawing, uint8 (H, W, 3), first row at the top."""
    from pygame import surfarray

    return surfarray.array3d(drawing).swapaxes(0, 1)


def _import_simulation() -> "type[Simulation]":
    """Import gym-pusht without what pygame prints."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from gym_pusht.envs.pusht import PushTEnv as Simulation
    return Simulation
