"""LeRobot devices without hardware, for tests: a robot that notes what it is sent, a teleoperator that sways.

LeRobot finds the module as it finds every plugin, by the name of its distribution, once this folder is on the path.
The robot stands beside the shipped `pixio_sim`, since no simulation tells what it was sent, or has joints as asked for.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.robots import Robot, RobotConfig
from lerobot.teleoperators import Teleoperator, TeleoperatorConfig


class _WithoutHardware:
    """What LeRobot asks of every device."""

    is_connected = False
    is_calibrated = True

    def connect(self, calibrate: bool = True) -> None:
        self.is_connected = True

    def disconnect(self) -> None:
        self.is_connected = False

    def calibrate(self) -> None:
        pass

    def configure(self) -> None:
        pass


@RobotConfig.register_subclass("noting")
@dataclass
class NotingConfig(RobotConfig):
    state_size: int = 6
    action_size: int = 6
    camera_names: list[str] = field(default_factory=lambda: ["front"])
    image_size: int = 64
    image_width: int | None = None
    joints: list[str] | None = None
    stands: list[float] | None = None
    notes: str = "actions.jsonl"


class Noting(_WithoutHardware, Robot):
    config_class = NotingConfig
    name = "noting"

    def __init__(self, config: NotingConfig) -> None:
        super().__init__(config)
        self.config = config
        self._random = np.random.default_rng(0)

    @property
    def observation_features(self) -> dict[str, Any]:
        config = self.config
        names = config.joints or [f"joint_{number}.pos" for number in range(config.state_size)]
        frame = (config.image_size, config.image_width or config.image_size, 3)
        return dict.fromkeys(names, float) | dict.fromkeys(config.camera_names, frame)

    @property
    def action_features(self) -> dict[str, Any]:
        names = self.config.joints or [f"joint_{number}.pos" for number in range(self.config.action_size)]
        return dict.fromkeys(names, float)

    def get_observation(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, kind in self.observation_features.items():
            is_joint = kind is float
            values[name] = self._random.normal() if is_joint else self._random.integers(0, 256, kind, dtype=np.uint8)
        names = self.config.joints or []
        return values | dict(zip(names, self.config.stands or [], strict=False))

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        with Path(self.config.notes).open("a") as file:
            file.write(json.dumps([float(action[name]) for name in self.action_features]) + "\n")
        return action


@TeleoperatorConfig.register_subclass("swaying")
@dataclass(kw_only=True)
class SwayingConfig(TeleoperatorConfig):
    names: list[str] = field(default_factory=list)


class Swaying(_WithoutHardware, Teleoperator):
    config_class = SwayingConfig
    name = "swaying"
    feedback_features: dict[str, Any] = {}  # noqa: RUF012 (LeRobot has it as a property)

    def __init__(self, config: SwayingConfig) -> None:
        super().__init__(config)
        self._names = config.names
        self._ticks = 0

    @property
    def action_features(self) -> dict[str, Any]:
        return dict.fromkeys(self._names, float)

    def get_action(self) -> dict[str, Any]:
        self._ticks += 1
        return dict.fromkeys(self._names, math.sin(self._ticks / 5) / 2)

    def send_feedback(self, feedback: dict[str, Any]) -> None:
        pass
