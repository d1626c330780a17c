"""LeRobot policies on Pixio encoders; importing this registers them (LeRobot's plugin discovery does)."""

from lerobot_policy_pixio.configuration_pixio_act import PixioACTConfig

__all__ = ["PixioACTConfig"]
