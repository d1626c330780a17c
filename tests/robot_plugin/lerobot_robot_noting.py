"""A LeRobot robot without hardware, for tests: random cameras and joints, and a file of the actions it is sent.

LeRobot finds it as it finds every plugin, by the name of its distribution, once this folder is on the path.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.robots import Robot, RobotConfig


@RobotConfig.register_subclass("noting")
@dataclass
class NotingConfig(RobotConfig):
    state_size: int = 6
    action_size: int = 6
    camera_names: list[str] = field(default_factory=lambda: ["front"])
    image_size: int = 64
    notes: str = "actions.jsonl"


class Noting(Robot):
    config_class = NotingConfig
    name = "noting"

    def __init__(self, config: NotingConfig) -> None:
        super().__init__(config)
        self.config = config
        self._random = np.random.default_rng(0)
        self._connected = False

    @property
    def observation_features(self) -> dict[str, Any]:
        joints: dict[str, Any] = {f"joint_{number}.pos": float for number in range(self.config.state_size)}
        return joints | dict.fromkeys(self.config.camera_names, (self.config.image_size, self.config.image_size, 3))

    @property
    def action_features(self) -> dict[str, Any]:
        return {f"joint_{number}.pos": float for number in range(self.config.action_size)}

    @property
    def is_connected(self) -> bool:
        return self._connected

    def connect(self, calibrate: bool = True) -> None:
        self._connected = True

    @property
    def is_calibrated(self) -> bool:
        return True

    def calibrate(self) -> None:
        pass

    def configure(self) -> None:
        pass

    def get_observation(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, kind in self.observation_features.items():
            is_joint = kind is float
            values[name] = self._random.normal() if is_joint else self._random.integers(0, 256, kind, dtype=np.uint8)
        return values

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        with Path(self.config.notes).open("a") as file:
            file.write(json.dumps([float(action[name]) for name in self.action_features]) + "\n")
        return action

    def disconnect(self) -> None:
        self._connected = False
