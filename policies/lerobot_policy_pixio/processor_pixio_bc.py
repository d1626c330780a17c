"""Processors of pixio_bc, in the module and under the name that LeRobot looks for."""

from lerobot_policy_pixio.vision_config import make_processors as make_pixio_bc_pre_post_processors

__all__ = ["make_pixio_bc_pre_post_processors"]
