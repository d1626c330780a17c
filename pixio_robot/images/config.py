"""How strongly images are changed, as settings: read without torch."""

from typing import Literal

from pixio_robot.common.settings import NonNegative, Share, settings

Filter = Literal["bilinear", "bicubic"]
Range = tuple[NonNegative, NonNegative]


@settings
class Photometric:
    """Strength of the photometric changes; each range is drawn from uniformly, once per image."""

    probability: Share = 0.8
    """Fraction of images that are changed at all."""
    brightness: Range = (0.2, 1.6)
    """Factor on all channels; 0.2 is light dimmed to a fifth."""
    channel_gain: Range = (0.6, 1.4)
    """Factor on each channel separately, the colour of a lamp."""
    contrast: Range = (0.6, 1.4)
    """Factor on the distance from the image's mean luminance."""
    saturation: Range = (0.3, 1.7)
    """Factor on the distance from the pixel's luminance."""
    hue: Share = 0.1
    """Largest rotation of hue, as a fraction of a full turn."""
    grey: Share = 0.1
    """Fraction of the changed images that lose all colour."""
