"""Renderers of any family."""

from lerobot_env_pixio.scenes.families import FAMILIES, check_families
from lerobot_env_pixio.scenes.pusht import PushTRenderer
from lerobot_env_pixio.scenes.renderer import SceneRenderer


def open_renderer(family: str, image_size: int, seed: int) -> SceneRenderer | PushTRenderer:
    """Return the renderer of a family.

    Args:
        family: A key of `FAMILIES`.
        image_size: Side of the square frames in pixels.
        seed: Seed of all randomness.

    Raises:
        ValueError: When the family is unknown.
    """
    check_families([family])
    if FAMILIES[family].simulator == "pusht":
        return PushTRenderer(image_size, seed)
    return SceneRenderer(family, image_size, seed)
