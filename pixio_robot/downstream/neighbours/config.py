"""How neighbours are found, as settings: read without torch."""

from pixio_robot.common.settings import Count, Positive, Text, settings


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
    families: tuple[Text, ...] | None = tuple(
        f"metaworld_{kind}"
        for kind in ("box", "button_press", "coffee", "drawer", "faucet", "hammer", "laptop", "window")
    )
    """Without images of one's own: scene families, which are the classes; null takes all."""
    scenes: Count = 100
    """Scenes of each family to learn from."""
    test_scenes: Count = 50
    """Scenes of each family to test on, of the next seed."""
    scene_seed: Count = 1000
    """Seed of the scenes; 0 is what encoders are pretrained on."""
    scene_size: Count = 128
    """Side of the scenes in pixels."""
