"""Frames of randomised robot scenes, for pretraining visual encoders."""

from lerobot_env_pixio.scenes.families import FAMILIES, Family
from lerobot_env_pixio.scenes.live import SceneFrames, open_renderer
from lerobot_env_pixio.scenes.model import SceneClass
from lerobot_env_pixio.scenes.pairs import PairRenderer, ScenePair
from lerobot_env_pixio.scenes.renderer import SceneRenderer
from lerobot_env_pixio.scenes.sample import SceneSample
from lerobot_env_pixio.scenes.shards import FrameShards, missing_shards, render_shards

scene_frames = SceneFrames  # the name of the entry point

__all__ = [
    "FAMILIES", "Family", "FrameShards", "PairRenderer", "SceneClass", "SceneFrames", "ScenePair",
    "SceneRenderer", "SceneSample", "missing_shards", "open_renderer", "render_shards", "scene_frames",
]  # fmt: skip
