"""Frames of randomised robot scenes, for pretraining visual encoders."""

import os
import sys

if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", "egl")  # read by MuJoCo when it is imported; needs no display
