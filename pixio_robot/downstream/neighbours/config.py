"""How neighbours are found, as settings: read without torch."""

from pixio_robot.common.settings import Count, Positive, settings


@settings(kw_only=True)
class NeighboursProtocol:
    """k-NN accuracy on a folder of images; on simulated scenes, of their families."""

    neighbours: tuple[Count, ...] = (10, 20, 100, 200)
    """Numbers k of neighbours that vote."""
    temperature: Positive = 0.07
    """A neighbour's vote weighs exp(similarity / temperature)."""
    resize: Count = 256
    """Shorter side in pixels that images are resized to, bicubic."""
    crop: Count = 256
    """Side in pixels of the central crop."""
