"""Frames of all families, rendered as they are asked for."""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from lerobot_env_pixio.scenes.families import FAMILIES, family_shares
from lerobot_env_pixio.scenes.pusht import PushTRenderer
from lerobot_env_pixio.scenes.renderer import SceneRenderer
from lerobot_env_pixio.simulators.tasks import look_up

FRAMES_PER_FAMILY = 64  # consecutive frames of one family; compiling another costs as much as some of them
OPEN_RENDERERS = 6  # each holds a scene and an OpenGL context; 12 grow to 5 GB, and save a tenth of the time
_FAMILY_STREAM = 4  # keeps these random numbers apart from the renderers'


def open_renderer(family: str, image_size: int, seed: int) -> SceneRenderer | PushTRenderer:
    """Return the renderer of a family.

    Args:
        family: A key of `FAMILIES`.
        image_size: Side of the square frames in pixels.
        seed: Seed of all randomness.

    Raises:
        ValueError: When the family is unknown.
    """
    if look_up("scene family", family, FAMILIES).simulator == "pusht":
        return PushTRenderer(image_size, seed)
    return SceneRenderer(family, image_size, seed)


class SceneFrames:
    """Frames rendered as they are asked for, for pretraining without a data set on disk.

    A frame depends on the seed, the families and its index only. Read it in order: blocks of `FRAMES_PER_FAMILY` frames
    come from one family, drawn by its share.
    """

    def __init__(self, image_size: int, seed: int, families: Sequence[str] | None = None) -> None:
        """Remember what to render; scenes are compiled when their first frame is asked for.

        Args:
            image_size: Side of the square frames in pixels.
            seed: Seed of all randomness.
            families: Keys of `FAMILIES`; all of them when None.

        Raises:
            ValueError: When a family is unknown or none is given.
        """
        shares = family_shares(FAMILIES if families is None else families)
        self._image_size = image_size
        self._seed = seed
        self._families, self._shares = list(shares), list(shares.values())
        self._renderers: OrderedDict[str, SceneRenderer | PushTRenderer] = OrderedDict()

    def family(self, index: int) -> str:
        """Return the family that frame `index` is taken from."""
        rng = np.random.default_rng([self._seed, _FAMILY_STREAM, index // FRAMES_PER_FAMILY])
        return self._families[rng.choice(len(self._families), p=self._shares)]

    def frame(self, index: int) -> np.ndarray:
        """Return frame `index`, uint8 (image_size, image_size, 3), upright."""
        family = self.family(index)
        if family not in self._renderers:
            if len(self._renderers) == OPEN_RENDERERS:
                self._renderers.popitem(last=False)[1].close()
            self._renderers[family] = open_renderer(family, self._image_size, self._seed)
        self._renderers.move_to_end(family)
        return self._renderers[family].frame(index)

    def close(self) -> None:
        """Give the OpenGL contexts back."""
        while self._renderers:
            self._renderers.popitem()[1].close()
