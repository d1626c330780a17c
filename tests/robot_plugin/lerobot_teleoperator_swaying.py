"""A LeRobot teleoperator without a hand, for tests: every number sways."""

import math
from dataclasses import dataclass, field
from typing import Any

from lerobot.teleoperators import Teleoperator, TeleoperatorConfig


@TeleoperatorConfig.register_subclass("swaying")
@dataclass(kw_only=True)
class SwayingConfig(TeleoperatorConfig):
    names: list[str] = field(default_factory=list)


class Swaying(Teleoperator):
    config_class = SwayingConfig
    name = "swaying"

    def __init__(self, config: SwayingConfig) -> None:
        super().__init__(config)
        self._names = config.names
        self._ticks = 0
        self._connected = False

    @property
    def action_features(self) -> dict[str, Any]:
        return dict.fromkeys(self._names, float)

    @property
    def feedback_features(self) -> dict[str, Any]:
        return {}

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

    def get_action(self) -> dict[str, Any]:
        self._ticks += 1
        return dict.fromkeys(self._names, math.sin(self._ticks / 5) / 2)

    def send_feedback(self, feedback: dict[str, Any]) -> None:
        pass

    def disconnect(self) -> None:
        self._connected = False
