"""A simulated task as a LeRobot robot."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.robots import Robot
from lerobot.utils.errors import DeviceAlreadyConnectedError, DeviceNotConnectedError

from lerobot_env_pixio.config_simulated_robot import SimulatedRobotConfig
from lerobot_env_pixio.recordings import Announcements, Take, check_recording, complete_recording
from lerobot_env_pixio.simulators.camera_env import CameraEnv
from lerobot_env_pixio.simulators.task_mixture import TaskMixture

logger = logging.getLogger(__name__)

_OF_DELTAS = {"delta_x": "x.vel", "delta_y": "y.vel", "delta_z": "z.vel"}
_GRIPPER, _FINGERS = "gripper", "gripper.pos"
# What LeRobot's keyboard and gamepad send for fingers, and the tasks' effort: 1 closes.
_CLOSE, _OPEN = 0, 2


class SimulatedRobot(Robot):
    """A task's arm, its cameras and its state, which move on by one control period with every action.

    An episode that is over is not followed by the next unless the config says so: after a success the robot goes on, as a
    real one does; once the episode's steps are used up it stays still. A recorded episode begins where LeRobot's recorder
    says that it does, with a scene of its own; recorded again, it has the same.

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
        self._env: CameraEnv | TaskMixture = env_config.make_env()
        self._fps = env_config.fps
        self._described = env_config.described()
        lacks = {*_OF_DELTAS.values(), _FINGERS} - set(self._env.action_names)
        if config.by_deltas and lacks:
            raise ValueError(
                f"{env_config.task} is not driven by deltas: its action is {', '.join(self._env.action_names)}"
            )
        self._observed: dict[str, Any] | None = None
        self._seed = config.seed
        self._steps, self._is_over, self._has_ended, self._fingers = 0, False, False, -1.0
        self._announcements = Announcements()
        self._takes: dict[int, Take] = {}
        self._take: Take | None = None
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
        """Numbers of the action: what the task's own action space has, in its order, or a device's deltas."""
        names = (*_OF_DELTAS, _GRIPPER) if self.config.by_deltas else self._env.action_names
        return dict.fromkeys(names, float)

    @property
    def is_connected(self) -> bool:
        """Whether an episode runs."""
        return self._observed is not None

    def connect(self, calibrate: bool = True) -> None:
        """Begin the first episode.

        Raises:
            ValueError: Nothing is recorded where the config says, or at another rate.
        """
        del calibrate
        if self.is_connected:
            raise DeviceAlreadyConnectedError(f"{self} already connected")
        if self.config.recording is not None:
            check_recording(Path(self.config.recording), self._fps)
        self._takes, self._take, self._announcements = {}, None, Announcements()
        logging.getLogger().addHandler(self._announcements)
        self._begin(self.config.seed)

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
        self._connected()
        self._heed_announcements()
        observed = self._connected()
        state = (float(number) for number in observed["agent_pos"])
        return {**dict(zip(self._env.state_names, state, strict=True)), **observed["pixels"]}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        """Simulate one control period; returns what was executed.

        Besides the task's own numbers it takes the deltas of LeRobot's keyboard and gamepad. A place to go to, which
        LeRobot sends at the end of a rollout, is for arms that go to places: others stay where they are.

        Raises:
            ValueError: A number is missing, or is not finite.
        """
        self._connected()
        names = self._env.action_names
        if not set(_OF_DELTAS).isdisjoint(action):
            action = self._from_deltas(action)
        missing = [name for name in names if name not in action]
        if missing and action and set(action) <= set(self._env.state_names):
            logger.debug("%s moves by %s and goes to no place: it stays", self, ", ".join(missing))
            return {}
        if missing:
            raise ValueError(f"the action lacks {', '.join(missing)}, got {', '.join(action)}")
        numbers = np.array([float(action[name]) for name in names], dtype=np.float32)
        if not np.isfinite(numbers).all():
            raise ValueError(f"the action is not finite: {numbers.tolist()}")
        space: Any = self._env.action_space
        numbers = np.clip(numbers, space.low, space.high)
        if self._take is not None:
            self._take.actions.append(numbers)
        # While a person pauses a policy, LeRobot sends the last command again and again, which would be further motion here.
        if not self._is_over and not self._announcements.is_paused:
            self._step(numbers)
        return dict(zip(names, (float(number) for number in numbers), strict=True))

    def disconnect(self) -> None:
        """Free the simulation, and complete what was recorded."""
        self._connected()
        logging.getLogger().removeHandler(self._announcements)
        self._env.close()
        self._observed = None
        logger.info("%d of %d episodes succeeded", self.successes, self.episodes)
        if self.config.recording is not None:
            complete_recording(Path(self.config.recording), self._takes, self._described, self._env.action_names)
        elif self._takes:
            logger.warning(
                "Success, seeds and environment of what was recorded are lost: next time give the dataset's folder as "
                "--robot.recording, too."
            )

    def _step(self, numbers: np.ndarray) -> None:
        self._observed, _, terminated, truncated, info = self._env.step(numbers)
        self._steps += 1
        if self._take is not None:
            self._take.success |= bool(info["is_success"])
        is_used_up = bool(truncated) or self._steps >= self._env._max_episode_steps
        if not (terminated or is_used_up):
            return
        goes_on = self.config.next_by_itself and not self._announcements.is_recording
        if not self._has_ended:
            self._has_ended = True
            self.episodes += 1
            self.successes += bool(info["is_success"])
            then = "the next episode begins" if goes_on else "it goes on" if not is_used_up else "it stays still"
            logger.info("seed %d: %s; %s", self._seed, "success" if info["is_success"] else "failure", then)
        if goes_on:
            self._begin(self._seed + 1)
        elif is_used_up:
            self._is_over = True
            logger.warning("After %d steps the simulated robot stays still: end the episode.", self._steps)

    def _begin(self, seed: int) -> None:
        self._seed, self._steps, self._is_over, self._has_ended, self._fingers = seed, 0, False, False, -1.0
        self._observed, _ = self._env.reset(seed=seed)

    def _heed_announcements(self) -> None:
        heard = self._announcements
        if heard.is_resumed:
            heard.is_resumed = False
            if self._has_ended and self.config.next_by_itself:
                self._begin(self._seed + 1)
        if heard.episode is None:
            self._take = None
        elif heard.is_new:
            heard.is_new = False
            again = self._takes.get(heard.episode)
            self._begin(again.seed if again else self.config.seed + len(self._takes))
            self._take = self._takes[heard.episode] = Take(self._seed)

    def _from_deltas(self, action: dict[str, Any]) -> dict[str, Any]:
        """Return the task's own numbers; directions that the device does not know stand still."""
        own = dict.fromkeys(self._env.action_names, 0.0)
        for delta, name in _OF_DELTAS.items():
            if name not in own:
                raise ValueError(f"{delta} moves nothing here: the action is {', '.join(own)}")
            own[name] = self.config.delta_scale * float(action.get(delta, 0.0))
        gripper = action.get(_GRIPPER)
        if gripper in (_CLOSE, _OPEN):
            self._fingers = 1.0 if gripper == _CLOSE else -1.0
        return own | {_FINGERS: self._fingers}

    def _connected(self) -> dict[str, Any]:
        if self._observed is None:
            raise DeviceNotConnectedError(f"{self} is not connected")
        return self._observed

    def _space(self, name: str) -> Any:  # noqa: ANN401 (gymnasium's spaces have no common shape)
        spaces: Any = self._env.observation_space
        return spaces[name]
