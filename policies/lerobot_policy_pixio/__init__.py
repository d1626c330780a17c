"""LeRobot policies on Pixio encoders; importing this registers them (LeRobot's plugin discovery does)."""

from lerobot_policy_pixio.configuration_pixio_act import PixioACTConfig
from lerobot_policy_pixio.configuration_pixio_bc import PixioBCConfig
from lerobot_policy_pixio.configuration_pixio_diffusion import PixioDiffusionConfig

__all__ = ["PixioACTConfig", "PixioBCConfig", "PixioDiffusionConfig"]
