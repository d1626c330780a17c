"""Frames of randomised robot scenes, for pretraining visual encoders."""

from lerobot_env_pixio.scenes.families import FAMILIES, Family
from lerobot_env_pixio.scenes.folder import FrameFolder, render_folder
from lerobot_env_pixio.scenes.renderer import SceneRenderer

__all__ = ["FAMILIES", "Family", "FrameFolder", "SceneRenderer", "render_folder"]
