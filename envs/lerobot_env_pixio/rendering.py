"""Camera frames of a MuJoCo simulation from a GL context that is made on the first frame."""

import os
import sys
from typing import TYPE_CHECKING

import numpy as np

from lerobot_env_pixio.render_profiles import RenderProfile

if TYPE_CHECKING:
    import mujoco


def choose_gl() -> None:
    """Set ``MUJOCO_GL=egl`` where the user chose nothing and there is no display to open a window on.

    MuJoCo reads the variable once, when it is first imported.
    """
    has_display = "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    if sys.platform == "linux" and not os.environ.get("MUJOCO_GL") and not has_display:
        os.environ["MUJOCO_GL"] = "egl"


def no_gl_error(cause: Exception) -> ValueError:
    """Return the error that says that no GL context can be made, and what to do about it."""
    detail = str(cause).strip().split("\n")[0] or type(cause).__name__
    return ValueError(
        f"no usable OpenGL for rendering with MUJOCO_GL={os.environ.get('MUJOCO_GL', '')!r} ({detail}): "
        "on Debian or Ubuntu run `apt-get install libegl1 libgl1 libgl1-mesa-dri` and set MUJOCO_GL=egl"
    )


class CameraRenderer:
    """Renders square frames of named cameras, upright, in one render profile.

    Args:
        model: The model to draw; the profile's settings are written to its visual quality, never to its physics.
        image_size: Height and width of a frame in pixels.
        profile: How to draw.

    Raises:
        ValueError: The machine has no usable OpenGL.
    """

    def __init__(self, model: "mujoco.MjModel", image_size: int, profile: RenderProfile) -> None:
        import mujoco

        profile.apply_to_model(model)
        model.vis.global_.offwidth = model.vis.global_.offheight = image_size
        try:
            self._renderer = mujoco.Renderer(model, image_size, image_size)
        except Exception as error:  # each GL platform fails with types of its own, of its binding's, or of MuJoCo's
            raise no_gl_error(error) from error
        profile.apply_to_scene(self._renderer.scene)
        self._options = mujoco.MjvOption()
        self._options.geomgroup[0] = 0  # robosuite keeps collision shapes in group 0 and visual ones in group 1

    def frame(self, data: "mujoco.MjData", camera: str) -> np.ndarray:
        """Return what a camera sees, uint8 (image_size, image_size, 3), first row at the top."""
        self._renderer.update_scene(data, camera, self._options)
        return self._renderer.render()

    def close(self) -> None:
        """Free the GL context."""
        self._renderer.close()
