"""How two-view heads are trained and judged, as settings: read without torch."""

from typing import Literal

from pixio_robot.common.settings import Count, NonNegative, Positive, Share, Text, Whole, settings


@settings(kw_only=True)
class TwoViewProtocol:
    """A transformer on the frozen tokens of two views tells rays, depth, pose, confidence and scale."""

    families: tuple[Text, ...] = ("lift_panda", "door_panda", "procedural_table", "procedural_arm")
    """Scene families of rendered pairs."""
    scene_seed: Count = 2000
    """Seed of the scenes of training; those of the test have the next one."""
    train_pairs: Count = 640
    """Rendered pairs of all families together to train on."""
    test_pairs: Count = 160
    """Rendered pairs of all families together to test on."""
    covisibility: Share = 0.25
    """Least share that each view of a pair sees of the other, in a folder of yours."""
    pairs_per_scene: Count = 100
    """Most pairs that are taken of one scene of a folder of yours."""
    test_share: Share = 0.2
    """Share of the scenes of a folder of yours that is tested on, where it has no `train/` and `test/`."""
    image_size: Count = 128
    """Side of the images in pixels; others are cropped to a square and resized."""
    points: Count = 32
    """Side of the grid of points that is told of an image; a multiple of the encoder's patch grid."""
    width: Count = 128
    """Width of the transformer."""
    rounds: Count = 2
    """Rounds of a block within each view and a block across both."""
    heads: Count = 4
    """Attention heads of a block."""
    steps: Count = 400
    """Training steps."""
    batch_size: Count = 16
    """Pairs of a step."""
    learning_rate: Positive = 1e-3
    """Peak, after warm-up."""
    final_learning_rate: NonNegative = 1e-5
    """Where a cosine ends."""
    warmup: Share = 0.1
    """Share of the steps in which the learning rate rises."""
    weight_decay: NonNegative = 0.05
    """Of AdamW, on matrices."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the transformer in training."""
    seeds: tuple[Whole, ...] = (0,)
    """One training each."""
    clouds: Whole = 3
    """Test pairs of which point clouds are drawn and written."""
