"""A simulated task as a LeRobot robot."""

import logging
from typing import Any

import numpy as np
from lerobot.robots import Robot
from lerobot.utils.errors import DeviceAlreadyConnectedError, DeviceNotConnectedError

from lerobot_env_pixio.config_simulated_robot import SimulatedRobotConfig
from lerobot_env_pixio.simulators.camera_env import CameraEnv

logger = logging.getLogger(__name__)


class SimulatedRobot(Robot):
    """A task's arm, its cameras and its state, which move on by one control period with every action.

    When an episode is over, by success or for its length, the next one begins: what a person does who puts the cube back.

    Raises:
        ValueError: The environment is none of this package's, or a name is unknown.
    """

    config_class = SimulatedRobotConfig
    name = "pixio_sim"
    moves_only_when_told = True
    """No command gets old between two, and nothing changes in what is seen."""

    def __init__(self, config: SimulatedRobotConfig) -> None:
        env_config = config.env_config()
        super().__init__(config)
        self.config = config
        self._env: CameraEnv = env_config.make_env()
        self._observed: dict[str, Any] | None = None
        self._seed = config.seed
        self.successes = self.episodes = 0
        # LeRobot's tools count them; there is no device behind any.
        self.cameras: dict[str, None] = dict.fromkeys(self._space("pixels"))

    @property
    def observation_features(self) -> dict[str, Any]:
        """Numbers of the state, and (H, W, 3) of each camera."""
        frames = {name: space.shape for name, space in self._space("pixels").items()}
        return {**dict.fromkeys(self._env.state_names, float), **frames}

    @property
    def action_features(self) -> dict[str, Any]:
        """Numbers of the action: what the task's own action space has, in its order."""
        return dict.fromkeys(self._env.action_names, float)

    @property
    def is_connected(self) -> bool:
        """Whether an episode runs."""
        return self._observed is not None

    def connect(self, calibrate: bool = True) -> None:
        """Begin the first episode."""
        del calibrate
        if self.is_connected:
            raise DeviceAlreadyConnectedError(f"{self} already connected")
        self._seed = self.config.seed
        self._observed, _ = self._env.reset(seed=self._seed)

    @property
    def is_calibrated(self) -> bool:
        """Always: there are no motors."""
        return True

    def calibrate(self) -> None:
        """Do nothing."""

    def configure(self) -> None:
        """Do nothing."""

    def get_observation(self) -> dict[str, Any]:
        """Return the state's numbers and the frames, uint8 (H, W, 3) in RGB, after the last action."""
        observed = self._connected()
        state = (float(number) for number in observed["agent_pos"])
        return {**dict(zip(self._env.state_names, state, strict=True)), **observed["pixels"]}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        """Simulate one control period; returns what was executed.

        Raises:
            ValueError: A number is missing, or is not finite.
        """
        self._connected()
        missing = [name for name in self._env.action_names if name not in action]
        if missing:
            raise ValueError(f"the action lacks {', '.join(missing)}, got {', '.join(action)}")
        numbers = np.array([float(action[name]) for name in self._env.action_names], dtype=np.float32)
        if not np.isfinite(numbers).all():
            raise ValueError(f"the action is not finite: {numbers.tolist()}")
        space: Any = self._env.action_space
        numbers = np.clip(numbers, space.low, space.high)
        self._observed, _, terminated, truncated, info = self._env.step(numbers)
        if terminated or truncated:
            self._begin_next_episode(bool(info["is_success"]))
        return dict(zip(self._env.action_names, (float(number) for number in numbers), strict=True))

    def disconnect(self) -> None:
        """Free the simulation."""
        self._connected()
        self._env.close()
        self._observed = None
        logger.info("%d of %d episodes succeeded", self.successes, self.episodes)

    def _begin_next_episode(self, success: bool) -> None:
        self.episodes += 1
        self.successes += success
        logger.info("seed %d: %s; the next episode begins", self._seed, "success" if success else "failure")
        self._seed += 1
        self._observed, _ = self._env.reset(seed=self._seed)

    def _connected(self) -> dict[str, Any]:
        if self._observed is None:
            raise DeviceNotConnectedError(f"{self} is not connected")
        return self._observed

    def _space(self, name: str) -> Any:  # noqa: ANN401 (gymnasium's spaces have no common shape)
        spaces: Any = self._env.observation_space
        return spaces[name]
