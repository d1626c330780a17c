"""PushT: a T to be pushed onto its goal by a round finger, seen from above."""

import os
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from lerobot_env_pixio.simulators.camera_env import CameraEnv, check_rate
from lerobot_env_pixio.simulators.tasks import look_up

if TYPE_CHECKING:
    from gym_pusht.envs.pusht import PushTEnv as Simulation
    from pygame import Surface

FPS = 10
WORLD = 512.0  # side of the square that everything happens in


class PushTEnv(CameraEnv):
    """gym-pusht's task.

    Action: float32 (2,), where the finger shall go, from 0 to 512. ``agent_pos``: where it is, in the same units.
    Reward: the share of the goal that the T covers over 0.95, at most 1; success is a share above 0.95. ``info`` has that share
    as ``coverage``, and the T's place and angle (3,) as ``block_pose``.

    Args:
        task: ``PushT``.
        camera_names: ``top`` alone.
        image_size: Height and width of a frame in pixels.
        render_profile: ``standard`` alone: nothing here is drawn by OpenGL.
        episode_length: Steps after which an episode is truncated.
        fps: Control rate in Hz: 10.
        perturbation: Name in `PERTURBATIONS`, or ``none``; what each does to a drawing is in `pusht_looks`.

    Raises:
        ValueError: A name or the rate is none of these.
    """

    def __init__(
        self,
        task: str,
        camera_names: Sequence[str],
        image_size: int,
        render_profile: str,
        episode_length: int,
        fps: int,
        perturbation: str = "none",
    ) -> None:
        look_up("task", task, {"PushT": None})
        look_up("render profile", render_profile, {"standard": None})
        for camera in camera_names:
            look_up("camera", camera, {"top": None})
        check_rate("PushT", FPS, fps)
        super().__init__(
            camera_names=camera_names,
            image_size=image_size,
            episode_length=episode_length,
            fps=fps,
            state_space=spaces.Box(0.0, WORLD, (2,), np.float32),
            state_names=("x.pos", "y.pos"),
            action_space=spaces.Box(0.0, WORLD, (2,), np.float32),
            action_names=("x.pos", "y.pos"),
            control_mode="absolute position of the finger",
            task_description="push the T-shaped block onto the T-shaped target",
            perturbation=perturbation,
        )
        self.task = task
        self._simulation: Simulation | None = None
        self._coverage = 0.0
        self._changed: Callable[[np.ndarray], np.ndarray] | None = None

    @property
    def simulation(self) -> "Simulation":
        """gym-pusht's environment, built on first use."""
        if self._simulation is None:
            # It would draw pixels in every step; an observation of its state costs nothing.
            self._simulation = _import_simulation()(
                obs_type="state", observation_width=self._image_size, observation_height=self._image_size
            )
        return self._simulation

    def _begin(self, seed: int) -> None:
        self.simulation.reset(seed=seed)
        self._coverage = float(self.simulation._get_coverage())

    def _execute(self, action: np.ndarray) -> tuple[float, bool]:
        _, reward, _, _, info = self.simulation.step(np.asarray(action, np.float64))
        self._coverage = float(info["coverage"])
        return float(reward), bool(info["is_success"])

    def _perturb(self, perturbation: str, rng: np.random.Generator) -> None:
        from lerobot_env_pixio.perturbations.pusht import PUSHT_LOOKS

        self._changed = PUSHT_LOOKS[perturbation](_pixels(self.simulation._draw()), rng)

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
