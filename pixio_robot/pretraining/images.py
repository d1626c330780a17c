"""Which images an encoder is trained on: the settings of each kind of source; read without torch."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator

from pixio_robot.common.errors import UserError
from pixio_robot.common.settings import Count, NonNegative, Share, Switch, Text, Whole, settings


@settings(kw_only=True)
class FolderImages:
    """Image files."""

    kind: Literal["folder"] = "folder"
    """Files in a folder."""
    path: Text
    """Folder, searched recursively for jpg, png, webp, bmp and tif files; links are followed."""
    side: Count = 160
    """Images are decoded once to squares of this many pixels; crops are taken from these."""


@settings(kw_only=True)
class DemoImages:
    """Frames of demonstrations."""

    kind: Literal["demos"] = "demos"
    """Frames of a demonstration store."""
    path: Text
    """A demonstration store, ….zarr."""
    side: Count = 128
    """Frames are kept as squares of this many pixels."""
    image_keys: tuple[Text, ...] | None = None
    """observation.images.<camera> to use; null takes all cameras."""


@settings
class Curation:
    """Which images of scored shards are shown, and how often."""

    min_entropy: NonNegative = 0.0
    """Least colour entropy in bits, exclusive, see `colour_entropy`; the paper's 4.5."""
    min_side: Whole = 0
    """Least number of pixels of the shorter side; the paper's 320."""
    scores: Text | None = None
    """Folder of the scores; null looks beside the shards."""

    def __str__(self) -> str:
        return f"curation (colour entropy above {self.min_entropy} bits, sides of at least {self.min_side} px)"

    def chance(self, loss: float | None, entropy: float | None, width: int | None, height: int | None) -> float:
        """Return min(loss, 1), or 0 for an image that is filtered out or could not be scored."""
        if loss is None or entropy is None or width is None or height is None:
            return 0.0
        # An entropy of exactly 0 passes when nothing is asked for.
        if (self.min_entropy and entropy <= self.min_entropy) or min(width, height) < self.min_side:
            return 0.0
        return min(loss, 1.0)


@settings(kw_only=True)
class ShardImages:
    """Images in tar shards."""

    kind: Literal["shards"] = "shards"
    """Images in webdataset tar shards."""
    path: Text | tuple[Text, ...]
    """A folder of .tar, .tar.gz or .tgz files, brace notation such as s-{0000..0099}.tar, or a URL that webdataset opens; or
    several."""
    side: Count = 512
    """Larger images are shrunk until their shorter side has this many pixels."""
    shards_in_memory: Count = 2
    """Shuffled together; about twice as many are held, encoded."""
    curation: Curation | None = None
    """Such as {min_entropy: 4.5, min_side: 320}; it needs the tables of scripts/score_images.py."""
    unreadable: Share = 0.05
    """Share of the shards at URLs that may be unreadable, after four tries, and are left out; more end the run."""
    decode_once: Switch = False
    """Keep decoded squares of `side` pixels under cache_dir, for shards on disk and a fast GPU."""

    def __post_init__(self) -> None:
        """Check that settings do not forbid each other.

        Raises:
            UserError: Curation is asked for where images are not drawn.
        """
        if self.decode_once and self.curation is not None:
            raise UserError(
                "Curation draws images anew in every epoch: leave images.decode_once or images.curation out."
            )


@settings(kw_only=True)
class LeRobotImages:
    """Frames of a LeRobotDataset."""

    kind: Literal["lerobot"] = "lerobot"
    """Frames of a LeRobotDataset v3."""
    path: Text
    """Folder of the dataset."""
    side: Count = 256
    """Larger frames are shrunk until their shorter side has this many pixels."""
    every: Count = 5
    """Neighbouring frames look alike: take every n-th."""
    cameras: tuple[Text, ...] | None = None
    """observation.images.<camera> to use; null takes all cameras."""
    pieces_in_memory: Count = 8
    """Pieces of 64 frames that are shuffled together."""


@settings(kw_only=True)
class LiveImages:
    """Frames rendered while training."""

    kind: Literal["live"] = "live"
    """Frames rendered while training; they never repeat."""
    generator: Text = "scenes"
    """An entry point of the group pixio_robot.frames; `scenes` comes with lerobot_env_pixio."""
    side: Count = 160
    """Side of the frames in pixels."""
    seed: Whole = 0
    """Seed of the frames."""
    families: tuple[Text, ...] | None = None
    """Families of scenes such as [lift_panda,door_iiwa]; null takes all."""
    workers: Count | None = None
    """Processes that render, 3 GB each; null takes one per core."""
    units_in_memory: Count = 16
    """Blocks of 64 consecutive frames that are shuffled together."""


@settings(kw_only=True)
class MixtureImages:
    """Several sources, mixed by weight."""

    kind: Literal["mixture"] = "mixture"
    """Several sources, mixed by weight."""
    sources: tuple[dict[str, Any], ...]
    """Such as [{kind: shards, path: web, weight: 3}, {kind: lerobot, path: robot, weight: 1}]: each with the settings of its
    kind; weights are per image."""

    def __post_init__(self) -> None:
        """Check every source.

        Raises:
            UserError: There are none, or one has wrong settings or no weight.
        """
        self.parts()

    def parts(self) -> list[tuple["Images", float]]:
        """Return the sources' settings and weights."""
        if not self.sources:
            raise UserError("A mixture needs sources: give images.sources=[{kind: …, weight: …}, …].")
        return [_part(number, dict(source)) for number, source in enumerate(self.sources)]


Images = Annotated[
    FolderImages | DemoImages | ShardImages | LeRobotImages | LiveImages | MixtureImages, Discriminator("kind")
]


@settings
class _Holder:
    images: Images


def images_from(values: Mapping[str, Any]) -> Images:
    """Build settings from plain values, as a YAML file holds them.

    Raises:
        UserError: Kind or setting are unknown (the nearest is offered), missing or out of range.
    """
    return _Holder(images=values).images  # pyright: ignore[reportArgumentType]


def _part(number: int, values: dict[str, Any]) -> tuple[Images, float]:
    weight = values.pop("weight", None)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
        raise UserError(f"Each of images.sources needs a weight, a positive number, not {weight!r}.")
    try:
        return images_from(values), float(weight)
    except UserError as error:
        raise UserError(f"images.sources.{number}: {error}") from error
