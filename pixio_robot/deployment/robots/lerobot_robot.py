"""Any LeRobot `Robot` as a robot of the runtime: names mapped, and checked before anything moves.

Shape letters: S state size, A action size.
"""

import importlib
import logging
import pkgutil
import time
from collections.abc import Callable, Mapping
from typing import Any

import draccus
import lerobot.cameras
import lerobot.robots
import numpy as np
from lerobot.robots import Robot, RobotConfig
from lerobot.robots.utils import make_robot_from_config
from lerobot.utils.constants import OBS_IMAGES, OBS_STATE
from lerobot.utils.import_utils import register_third_party_plugins

from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.deployment.runtime import CameraSource, Observation

logger = logging.getLogger(__name__)

_STOPS = ("safe_stop", "stop", "stop_base")
# What LeRobot itself takes for a policy where a robot reports more (lerobot.rollout.context).
_POLICY_SUFFIXES = (".pos", ".vel")


def make_robot(description: Mapping[str, Any]) -> Robot:
    """Make a robot that LeRobot, or an installed `lerobot_robot_*` or `lerobot_env_*` plugin, knows; not connected.

    Args:
        description: `type` and the fields of that robot's config.

    Raises:
        UserError: The type or a field is unknown, or the robot's own packages are not installed.
    """
    known = known_robots()
    kind = str(description["type"])
    if kind not in known:
        raise UserError(f"Unknown robot {kind!r}. {nearest_name(kind, known)}")
    try:
        config = draccus.decode(RobotConfig, dict(description))
        return make_robot_from_config(config)
    except (draccus.utils.DecodingError, ValueError, TypeError, ImportError) as error:
        raise UserError(f"The robot {kind!r} cannot be made: {' '.join(str(error).split())}") from error


def known_robots() -> dict[str, type[RobotConfig]]:
    """Return the configs of all robots whose libraries are installed, by the types under which LeRobot knows them."""
    register_third_party_plugins()
    _register_shipped_types()
    return dict(RobotConfig.get_known_choices())


class LeRobotRobot:
    """A LeRobot robot; state and action vectors are put together in the artifact's order of names."""

    def __init__(
        self, robot: Robot, metadata: Mapping[str, Any], cameras: Mapping[str, str], names: str = "artifact"
    ) -> None:
        """Map the robot's features to the artifact's.

        Args:
            robot: The robot.
            metadata: Of the artifact.
            cameras: The robot's name of a camera by the artifact's, where they differ.
            names: Where numbers that the artifact does not name get their names: `artifact` refuses, `robot` takes the
                robot's numbers in its order.

        Raises:
            UserError: Names of the state or the action differ or are missing, or their number does.
        """
        self._robot = robot
        observed: Mapping[str, Any] = robot.observation_features
        offered = [name for name, kind in observed.items() if isinstance(kind, tuple) and len(kind) == 3]
        renamed = {theirs: ours for ours, theirs in cameras.items()}
        for name in renamed:
            if name not in offered:
                raise UserError(f"The robot has no camera {name!r}. {nearest_name(name, offered)}")
        self._frames = {f"{OBS_IMAGES}.{renamed.get(name, name)}": name for name in offered}
        self._devices = {name: _camera_of(robot, name) for name in offered}
        self.cameras = {key: self._source(name, observed[name]) for key, name in self._frames.items()}
        numbers = [name for name, kind in observed.items() if not isinstance(kind, tuple)]
        state = metadata["state"]
        self.state_names = [] if state is None else _ordered("state", state, numbers, names)
        self.action_names = _ordered("action", metadata["action"], list(robot.action_features), names)
        self.state_size, self.action_size = len(self.state_names) or None, len(self.action_names)
        self.is_over = False  # never: a real robot has no episodes
        self.moves_only_when_told: bool = getattr(robot, "moves_only_when_told", False)
        self._start = time.perf_counter()

    def connect(self) -> None:
        """Connect."""
        self._robot.connect()

    def disconnect(self) -> None:
        """Disconnect."""
        self._robot.disconnect()

    @property
    def safe_stop(self) -> Callable[[], object] | None:
        """The driver's own stop (as LeKiwi's of its wheels); None where it has none."""
        calls = (getattr(self._robot, name, None) for name in _STOPS)
        return next((call for call in calls if callable(call)), None)

    def observe(self) -> Observation:
        """Return what the robot perceives; what it did not give is missing, so that the runtime holds."""
        seen = self._robot.get_observation()
        values = {key: np.asarray(seen[name]) for key, name in self._frames.items() if name in seen}
        if self.state_names and all(name in seen for name in self.state_names):
            values[OBS_STATE] = np.array([float(seen[name]) for name in self.state_names], dtype=np.float32)
        now = time.perf_counter()
        return Observation(values, now - self._start, self._ages(now))

    def named(self, action: np.ndarray) -> dict[str, float]:
        """Return an action (A,) as LeRobot sends it."""
        return dict(zip(self.action_names, (float(number) for number in action), strict=True))

    def send(self, action: np.ndarray) -> None:
        """Send an action."""
        self._robot.send_action(self.named(action))

    def _source(self, name: str, shape: tuple[int, int, int]) -> CameraSource:
        device = self._devices[name]
        if device is None and not getattr(self._robot, "moves_only_when_told", False):
            logger.warning("the colour order of camera %s is not known, and taken for RGB", name)
        mode = getattr(device, "color_mode", "rgb")
        return CameraSource(shape[0], shape[1], str(getattr(mode, "value", mode)).upper())

    def _ages(self, now: float) -> dict[str, float]:
        """Return seconds since each camera's last frame; LeRobot's cameras stamp theirs with `time.perf_counter`."""
        stamps = {key: getattr(self._devices[name], "latest_timestamp", None) for key, name in self._frames.items()}
        return {key: now - stamp for key, stamp in stamps.items() if isinstance(stamp, float)}


def _camera_of(robot: Robot, name: str) -> Any:  # noqa: ANN401 (LeRobot's cameras, or what their configs say of them)
    """Return the camera behind a name of the observation; None where none is found.

    A robot of several arms observes `left_wrist` where its `left_arm` has a camera `wrist`; the cameras of all arms together
    stand in its own `cameras` under their short names, of which one hides the other.
    """
    for part, arm in vars(robot).items():
        short = name.removeprefix(f"{part.removesuffix('_arm')}_")
        if short != name and short in _cameras(arm):
            return _cameras(arm)[short]
    return _cameras(robot).get(name)


def _cameras(robot: object) -> Mapping[str, Any]:
    """Return a robot's cameras, or else their configs."""
    for owner in (robot, getattr(robot, "config", None)):
        cameras = getattr(owner, "cameras", None)
        if isinstance(cameras, Mapping) and any(camera is not None for camera in cameras.values()):
            return cameras
    return {}


def _ordered(what: str, described: Mapping[str, Any], offered: list[str], source: str) -> list[str]:
    """Return the robot's names in the artifact's order.

    Raises:
        UserError: A name is missing, or the numbers differ.
    """
    names = described["names"]
    if names:
        missing = [name for name in names if name not in offered]
        if missing or (what == "action" and len(names) != len(offered)):
            raise UserError(
                f"The demonstrations' {what} is {', '.join(names)}, but the robot's is {', '.join(offered)}: use the robot "
                f"that they were recorded on."
            )
        return list(names)
    for candidates in (offered, [name for name in offered if name.endswith(_POLICY_SUFFIXES)]):
        if len(candidates) != described["size"]:
            continue
        if source != "robot":
            raise UserError(
                f"The numbers of the {what} have no names: give names=robot to take them for the robot's "
                f"{', '.join(candidates)}, in that order, or export an artifact again with {what}_names=[…]."
            )
        logger.warning(
            "the numbers of the %s have no names: taken for the robot's %s, in that order", what, ", ".join(candidates)
        )
        return candidates
    raise UserError(
        f"The demonstrations' {what} has {described['size']} numbers, but the robot's has {len(offered)} "
        f"({', '.join(offered)}): use the robot that they were recorded on."
    )


def _register_shipped_types() -> None:
    """Import LeRobot's own robots and cameras, which registers their types; those whose libraries are missing are not."""
    for package in (lerobot.robots, lerobot.cameras):
        for module in pkgutil.iter_modules(package.__path__):
            if module.ispkg:
                try:
                    importlib.import_module(f"{package.__name__}.{module.name}")
                except ImportError as error:
                    logger.debug("%s cannot be used: %s", module.name, error)
