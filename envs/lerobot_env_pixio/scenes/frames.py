"""Frames of all families as one endless sequence, for pretraining that renders while it trains.

`scene_frames` is registered as the entry point `scenes` of the group `pixio_robot.frames`.
"""

from collections.abc import Sequence

import numpy as np

from lerobot_env_pixio.scenes.families import FAMILIES, check_families, family_shares
from lerobot_env_pixio.scenes.live import open_renderer

FRAMES_PER_FAMILY = 256  # compiling a scene takes as long as rendering many frames of it
_FAMILY_STREAM = 2  # keeps these random numbers apart from those of the renderers


class SceneFrames:
    """Frame `index` depends on seed and index alone; its family changes every `FRAMES_PER_FAMILY` frames."""

    def __init__(self, image_size: int, seed: int, families: Sequence[str] | None = None) -> None:
        """Choose families; nothing is compiled before the first frame.

        Args:
            image_size: Side of the square frames in pixels.
            seed: Seed of all randomness.
            families: Keys of `FAMILIES`; None takes all.

        Raises:
            ValueError: When a family is unknown.
        """
        names = list(families or FAMILIES)
        check_families(names)
        shares = family_shares(names)
        self._names = list(shares)
        self._shares = np.array(list(shares.values())) / sum(shares.values())
        self._image_size = image_size
        self._seed = seed
        self._family: str | None = None

    def family(self, index: int) -> str:
        """Return the family of a frame."""
        rng = np.random.default_rng([self._seed, _FAMILY_STREAM, index // FRAMES_PER_FAMILY])
        return self._names[rng.choice(len(self._names), p=self._shares)]

    def frame(self, index: int) -> np.ndarray:
        """Return frame `index`, uint8 (image_size, image_size, 3), upright."""
        family = self.family(index)
        if family != self._family:
            if self._family is not None:
                self._renderer.close()
            self._renderer = open_renderer(family, self._image_size, self._seed)
            self._family = family
        return self._renderer.frame(index)


def scene_frames(image_size: int, seed: int, families: Sequence[str] | None = None) -> SceneFrames:
    """Open the frames of all families, or of some; see `SceneFrames`."""
    return SceneFrames(image_size, seed, families)
