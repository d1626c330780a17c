"""Named ways of drawing the same simulation; a profile never touches physics."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lerobot_env_pixio.rendering.decimation import decimate_visual_meshes

if TYPE_CHECKING:
    import mujoco

_SLICES, _STACKS = 16, 8  # of spheres, cylinders and capsules; MuJoCo's defaults are 28 and 16


@dataclass(frozen=True)
class RenderProfile:
    """What of MuJoCo's rendering a profile keeps.

    Attributes:
        shadows: Whether lights cast shadows (robosuite ships a 4096 x 4096 shadow map).
        reflections: Whether materials reflect.
        multisampling: Whether edges are smoothed by the number of samples that robosuite sets (4).
        full_textures: Whether textures keep details that are finer than half a pixel when they fill the frame.
        full_meshes: Whether meshes that are only looked at keep all of their faces, and round shapes MuJoCo's number.
    """

    shadows: bool
    reflections: bool
    multisampling: bool
    full_textures: bool
    full_meshes: bool

    def apply_to_model(self, model: "mujoco.MjModel", image_size: int) -> None:
        """Set what has to be known before a GL context is made for the model.

        Args:
            model: The model to draw.
            image_size: Height and width of the frames in pixels.
        """
        model.vis.global_.offwidth = model.vis.global_.offheight = image_size
        if not self.shadows:
            model.vis.quality.shadowsize = 0
        if not self.multisampling:
            model.vis.quality.offsamples = 0
        if not self.full_textures:
            _shrink_textures(model, 2 * image_size)
        if not self.full_meshes:
            decimate_visual_meshes(model)
            model.vis.quality.numslices, model.vis.quality.numstacks = _SLICES, _STACKS

    def apply_to_scene(self, scene: "mujoco.MjvScene") -> None:
        """Set the drawing flags of a renderer's scene."""
        import mujoco

        scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = self.shadows
        scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = self.reflections


def _shrink_textures(model: "mujoco.MjModel", widest: int) -> None:
    """Average texture pixels until no texture is wider; OpenGL stores six copies of most, 130 MB for robosuite's."""
    for texture in range(model.ntex):
        height, width, channels = (
            int(sizes[texture]) for sizes in (model.tex_height, model.tex_width, model.tex_nchannel)
        )
        step = -(-width // widest)
        n_sides = height // width if height % width == 0 else 1  # the sides of a cube or sky lie below one another
        rows, columns = height // n_sides // step, width // step
        start = model.tex_adr[texture]
        pixels = model.tex_data[start : start + height * width * channels].reshape(n_sides, -1, width, channels)
        blocks = pixels[:, : rows * step, : columns * step].reshape(n_sides, rows, step, columns, step, channels)
        small = blocks.mean(axis=(2, 4)).round().astype(np.uint8).ravel()
        model.tex_data[start : start + small.size] = small
        model.tex_height[texture], model.tex_width[texture] = n_sides * rows, columns


_STANDARD = RenderProfile(shadows=True, reflections=True, multisampling=True, full_textures=True, full_meshes=True)
_FAST = replace(_STANDARD, shadows=False, reflections=False, multisampling=False, full_textures=False)

RENDER_PROFILES: dict[str, RenderProfile] = {
    "standard": _STANDARD,
    "fast": _FAST,
    "lite": replace(_FAST, full_meshes=False),
}
