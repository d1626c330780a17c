"""Steps per second with every camera rendered: simulators as they ship beside this package's render profiles.

All sides of a comparison run in one process, a round of one after a round of the next, so that what else the machine does
meets them alike.
"""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from lerobot_env_pixio.configuration import MetaworldEnvConfig, RobosuiteEnvConfig
from lerobot_env_pixio.rendering.frames import CameraRenderer
from lerobot_env_pixio.rendering.profiles import RENDER_PROFILES
from lerobot_env_pixio.simulators.camera_env import MujocoCameraEnv
from lerobot_env_pixio.simulators.simulation import MODEL_SEED, import_robosuite, mend_sawyer, numpy_seed

SHIPPED, FLOOR, PHYSICS = "as shipped", "floor", "physics alone"
_WARM_UP_STEPS = 5  # the first frame compiles shaders, the first step what numba compiles
_ACTION_SIZE = 0.3  # of the greatest: the arm stays in view and out of the table


@dataclass
class Side:
    """One way of simulating and rendering a task.

    Attributes:
        name: ``as shipped``, a render profile, ``floor`` (every camera's frame is drawn with no geometry in it) or
            ``physics alone`` (none is drawn).
        reset: Starts an episode from a seed.
        step: Executes an action and renders every camera.
        wall_seconds: Of each round.
        cpu_seconds: Of each round, all threads of the process.
    """

    name: str
    reset: Callable[[int], object]
    step: Callable[[np.ndarray], object]
    wall_seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    def run(self, seed: int, actions: np.ndarray) -> None:
        """Time a round: an episode's steps (N, actions) after a few that warm up."""
        self.reset(seed)
        for action in actions[:_WARM_UP_STEPS]:
            self.step(action)
        wall, cpu = time.perf_counter(), time.process_time()
        for action in actions:
            self.step(action)
        self.wall_seconds.append(time.perf_counter() - wall)
        self.cpu_seconds.append(time.process_time() - cpu)


def compare(
    config: RobosuiteEnvConfig | MetaworldEnvConfig,
    steps: int,
    rounds: int,
    advance: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Measure a task on every side.

    Args:
        config: The task, its cameras and their size; each side but the first has a render profile of its own.
        steps: Steps of a round.
        rounds: Rounds of each side, in turn.
        advance: Called after each of `rounds` times `number_of_sides` rounds.

    Raises:
        ValueError: The machine has no usable OpenGL, or the simulator as it ships cannot render these cameras.

    Returns:
        What was compared, and for each side by name ``steps_per_second``, ``ratio`` to the one as shipped and
        ``ratio_range`` over the rounds (all by the clock on the wall), ``cpu_ms_per_step`` and ``cpu_ratio``.
    """
    sides, close = _sides(config)
    n_actions = config.features["action"].shape[0]
    try:
        for seed in range(rounds):
            actions = np.random.default_rng(seed).uniform(-_ACTION_SIZE, _ACTION_SIZE, (steps, n_actions))
            for side in sides:
                side.run(seed, actions.astype(np.float32))
                advance()
    finally:
        close()
    return {
        "task": config.task,
        "cameras": list(config.camera_names),
        "image_size": config.image_size,
        "steps": steps,
        "rounds": rounds,
        "sides": {side.name: _summary(side, sides[0], steps) for side in sides},
    }


def number_of_sides() -> int:
    """How many sides a comparison has."""
    return len(RENDER_PROFILES) + 3


def _summary(side: Side, shipped: Side, steps: int) -> dict[str, Any]:
    ratios = np.divide(shipped.wall_seconds, side.wall_seconds)
    return {
        "steps_per_second": steps / float(np.median(side.wall_seconds)),
        "ratio": float(np.median(ratios)),
        "ratio_range": [float(ratios.min()), float(ratios.max())],
        "cpu_ms_per_step": 1000 * float(np.median(side.cpu_seconds)) / steps,
        "cpu_ratio": float(np.median(np.divide(shipped.cpu_seconds, side.cpu_seconds))),
    }


def _sides(config: RobosuiteEnvConfig | MetaworldEnvConfig) -> tuple[list[Side], Callable[[], None]]:
    """Make the sides, and what closes them."""
    envs: list[Any] = []
    sides = [_robosuite_as_shipped(config) if isinstance(config, RobosuiteEnvConfig) else _metaworld_as_shipped(config)]
    for profile in RENDER_PROFILES:
        env: Any = dataclasses.replace(config, render_profile=profile).make_env()
        envs.append(env)
        sides.append(Side(profile, _reset(env), env.step))
    bare = envs[-1]
    bare.reset(seed=0)
    empty = CameraRenderer(bare.model, config.image_size, RENDER_PROFILES["lite"], visual_groups=())

    def step_with_empty_frames(action: np.ndarray) -> None:
        _step_unseen(bare, action)
        for camera in config.camera_names:
            empty.frame(bare.data, camera)

    sides += [
        Side(FLOOR, _reset(bare), step_with_empty_frames),
        Side(PHYSICS, _reset(bare), lambda action: _step_unseen(bare, action)),
    ]

    def close() -> None:
        empty.close()
        for env in envs:
            env.close()

    return sides, close


def _robosuite_as_shipped(config: RobosuiteEnvConfig) -> Side:
    """Robosuite's own observations; it expects that nobody else uses OpenGL, so its context is made current for it."""
    assert config.task is not None
    robosuite = import_robosuite()
    mend_sawyer()
    with numpy_seed(MODEL_SEED):
        simulation: Any = robosuite.make(
            config.task,
            robots=config.robot,
            control_freq=config.fps,
            has_renderer=False,
            has_offscreen_renderer=True,
            use_camera_obs=True,
            camera_names=list(config.camera_names),
            camera_heights=config.image_size,
            camera_widths=config.image_size,
            ignore_done=True,
            hard_reset=False,
        )

    def make_current() -> None:
        simulation.sim._render_context_offscreen.gl_ctx.make_current()

    def reset(seed: int) -> None:
        make_current()
        with numpy_seed(seed):
            simulation.reset()

    def step(action: np.ndarray) -> None:
        make_current()
        simulation.step(action)

    return Side(SHIPPED, reset, step)


def _metaworld_as_shipped(config: MetaworldEnvConfig) -> Side:
    """Meta-World through gymnasium's renderer, as LeRobot's environment uses it, which knows one camera."""
    import gymnasium
    import metaworld  # noqa: F401 (registers its environments)

    if len(config.camera_names) != 1:
        raise ValueError(
            f"Meta-World's own renderer draws one camera: compare with that many, not {len(config.camera_names)}"
        )
    env = gymnasium.make(
        "Meta-World/MT1",
        env_name=config.task,
        render_mode="rgb_array",
        camera_name=config.camera_names[0],
        width=config.image_size,
        height=config.image_size,
        disable_env_checker=True,  # it warns of Meta-World's bounds
    )

    def step(action: np.ndarray) -> None:
        env.step(action)
        viewer: Any = env.unwrapped.mujoco_renderer.viewer  # pyright: ignore[reportAttributeAccessIssue]
        if viewer is not None:
            viewer.make_context_current()
        env.render()

    return Side(SHIPPED, lambda seed: env.reset(seed=seed), step)


def _reset(env: MujocoCameraEnv) -> Callable[[int], object]:
    return lambda seed: env.reset(seed=seed)


def _step_unseen(env: MujocoCameraEnv, action: np.ndarray) -> None:
    env.render_observations = False
    env.step(action)
    env.render_observations = True
