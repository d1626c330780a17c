"""Named ways of drawing the same simulation; a profile never touches physics."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mujoco


@dataclass(frozen=True)
class RenderProfile:
    """What of MuJoCo's rendering a profile keeps.

    Attributes:
        shadows: Whether lights cast shadows (robosuite ships a 4096 x 4096 shadow map).
        reflections: Whether materials reflect.
        multisampling: Whether edges are smoothed by the number of samples that robosuite sets (4).
    """

    shadows: bool
    reflections: bool
    multisampling: bool

    def apply_to_model(self, model: "mujoco.MjModel") -> None:
        """Set what has to be known before a GL context is made for the model."""
        if not self.shadows:
            model.vis.quality.shadowsize = 0
        if not self.multisampling:
            model.vis.quality.offsamples = 0

    def apply_to_scene(self, scene: "mujoco.MjvScene") -> None:
        """Set the drawing flags of a renderer's scene."""
        import mujoco

        scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = self.shadows
        scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = self.reflections


RENDER_PROFILES: dict[str, RenderProfile] = {
    "standard": RenderProfile(shadows=True, reflections=True, multisampling=True),
    "fast": RenderProfile(shadows=False, reflections=False, multisampling=False),
}
