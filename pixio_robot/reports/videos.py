"""Videos of rollouts: what the policy's cameras saw, side by side.

Letters of shape suffixes: T time steps, H height, W width, C colours (red, green, blue).
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from lerobot.utils.io_utils import write_video

from pixio_robot.common.storage.files import atomic_path

# Cameras of policies are small; enlarged before the encoder halves the colour resolution, they stay pleasant
# to watch.
_VIDEO_HEIGHT = 256


def write_rollout_video(path: Path, frames: Sequence[dict[str, np.ndarray]], fps: int) -> None:
    """Write an H.264 mp4 (yuv420p, which every browser plays) with the cameras side by side.

    Args:
        path: File to write.
        frames: One dict per time step: camera name to uint8 (H, W, C).
        fps: Frames per second.

    Raises:
        UserError: The disk is full, or nothing may be written there; there is no file then.
    """
    videos_THWC = [_enlarge(np.stack([frame[camera] for frame in frames])) for camera in frames[0]]
    with atomic_path(path, kept="the other results are kept") as unfinished:
        named = unfinished.with_name(f"{unfinished.name}{path.suffix}")  # the encoder goes by how a file's name ends
        try:
            write_video(named, list(np.concatenate(videos_THWC, axis=2)), fps)
            os.replace(named, unfinished)
        finally:
            named.unlink(missing_ok=True)


def _enlarge(video_THWC: np.ndarray) -> np.ndarray:
    height, width = video_THWC.shape[1:3]
    # The encoder wants even sides.
    size = (_VIDEO_HEIGHT, 2 * round(width * _VIDEO_HEIGHT / height / 2))
    video_TCHW = torch.from_numpy(video_THWC).permute(0, 3, 1, 2)
    resized_TCHW = torch.nn.functional.interpolate(video_TCHW, size, mode="bicubic", antialias=True)
    return resized_TCHW.permute(0, 2, 3, 1).numpy()
