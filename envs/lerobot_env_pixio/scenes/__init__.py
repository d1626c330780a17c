"""Frames of randomised robot scenes, for pretraining visual encoders."""

from lerobot_env_pixio.scenes.families import FAMILIES, Family
from lerobot_env_pixio.scenes.live import open_renderer
from lerobot_env_pixio.scenes.renderer import SceneRenderer
from lerobot_env_pixio.scenes.shards import FrameShards, render_shards

__all__ = ["FAMILIES", "Family", "FrameShards", "SceneRenderer", "open_renderer", "render_shards"]
