"""How dense heads are trained and judged, as settings: read without torch."""

from dataclasses import field
from typing import Literal

from pixio_robot.common.errors import UserError
from pixio_robot.common.settings import Count, NonNegative, Positive, Switch, Text, Whole, settings

HeadName = Literal["linear", "dpt"]
PublicSet = Literal["nyu", "kitti", "ade20k", "voc", "loveda"]


@settings(kw_only=True)
class Recipe:
    """What differs between data sets."""

    batch_size: Count = 16
    """Images of a step."""
    linear_rate: Positive = 4e-3
    """Highest learning rate of the linear head."""
    dpt_rate: Positive = 1e-3
    """Highest learning rate of the DPT head."""

    def rate(self, head: HeadName) -> float:
        """Return the highest learning rate of a head."""
        return self.linear_rate if head == "linear" else self.dpt_rate


@settings(kw_only=True)
class DenseScenes:
    """Simulated scenes in the place of a public data set."""

    families: tuple[Text, ...] = ("lift_panda", "stack_panda", "door_panda", "pick_place_panda")
    """Scene families that heads are trained on."""
    held_out_families: tuple[Text, ...] = ("lift_ur5e", "nut_assembly_panda")
    """Scene families that heads meet in the test alone."""
    seed: Count = 1000
    """Seed of the training scenes; 0 is what encoders are pretrained on."""
    test_seed: Count = 2000
    """Seed of the test scenes."""
    frames: Count = 1200
    """Training frames of all families together."""
    test_frames: Count = 320
    """Test frames of the families trained on, and as many of those held out."""
    image_size: Count = 128
    """Side of the frames in pixels."""

    def __post_init__(self) -> None:
        """Check that nothing is trained and tested on.

        Raises:
            UserError: Seeds are equal, or a family is on both lists.
        """
        if self.seed == self.test_seed:
            raise UserError(f"Scenes of seed {self.seed} are trained on: choose another scenes.test_seed.")
        both = sorted(set(self.families) & set(self.held_out_families))
        if both:
            raise UserError(
                f"{both[0]} cannot be trained on and held out: leave it out of families or held_out_families."
            )


@settings(kw_only=True)
class DenseProtocol:
    """Depth and segmentation heads on frozen features."""

    heads: tuple[HeadName, ...] = ("linear", "dpt")
    """`linear` reads the last block; `dpt` four evenly spaced ones."""
    seeds: tuple[Whole, ...] = (0,)
    """One training of each head for each: initial weights, crops and the order of images."""
    crop: Count = 128
    """Side in pixels of the crops that heads are trained on, and of the windows that they are tested by."""
    stride: Count = 85
    """Pixels from one window to the next; two thirds of the crop."""
    flip: Switch = False
    """Mirror every other training image."""
    scale: tuple[Positive, Positive] | None = None
    """Range of the factor on the sides of training images, for segmentation; null leaves them as they are."""
    epochs: Count = 6
    """Passes over the training images."""
    evaluate_every: Count = 3
    """Epochs between tests; the last epoch counts, and the best stands beside it."""
    weight_decay: NonNegative = 0.01
    """Of AdamW, on all parameters."""
    dpt_width: Count = 32
    """Channels of the DPT head's fusion."""
    dpt_channels: tuple[Count, Count, Count, Count] = (24, 48, 96, 96)
    """Channels of the DPT head's four levels, the finest first."""
    recipe: Recipe = Recipe()
    """Batch size and learning rates."""
    recipes: dict[PublicSet, Recipe] = field(default_factory=dict)
    """Those of data sets that differ."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of forward passes; weights stay in float32."""
    cache_gib: NonNegative = 4.0
    """Features up to this size are computed once, where crops and scales leave nothing to chance; else at every step."""
    scenes: DenseScenes = DenseScenes()
    """Simulated scenes."""

    def __post_init__(self) -> None:
        """Check that windows meet.

        Raises:
            UserError: They do not, or there is no head or seed.
        """
        if self.stride > self.crop:
            raise UserError(f"A stride of {self.stride} px leaves gaps between windows of {self.crop} px.")
        for name in ("heads", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise UserError(f"{name} must name at least one, and each once.")

    def recipe_of(self, dataset: str) -> Recipe:
        """Return batch size and learning rates for a data set."""
        return {str(name): recipe for name, recipe in self.recipes.items()}.get(dataset, self.recipe)
