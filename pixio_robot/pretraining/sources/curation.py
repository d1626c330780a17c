"""Self-curation (arXiv 2512.15715, §3): images that are easy to reconstruct are shown less often, poor ones never.

An image is kept with probability min(loss, 1) each time it is drawn, where loss is the reconstruction loss of a
Pixio trained on the raw images; images with few colours or few pixels are left out. The numbers come from a table
beside every shard, which `scripts/score_images.py` writes.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pixio_robot.common.errors import UserError
from pixio_robot.pretraining.images import Curation


def colour_entropy(pixels_HWC: np.ndarray) -> float:
    """Entropy of an image's colours in bits, from 0 (one colour) to 9.

    The paper filters by "colour-histogram entropy > 4.5" without bins or base. Here the histogram is joint over RGB
    with 8 levels per channel, 512 bins, and the logarithm has base 2: 4.5 bits are half of what is possible, the
    entropy of 23 equally frequent colours. Screenshots, drawings and text on a plain ground lie below, photographs of
    scenes above. Per-channel histograms of 256 levels would put nearly every photograph at 6 to 8 bits and with base e
    most of them below 5.5, so that 4.5 would be either no filter or one that splits ordinary photographs.

    Args:
        pixels_HWC: uint8 RGB.
    """
    red, green, blue = ((pixels_HWC[..., channel] >> 5).astype(np.uint16) for channel in range(3))
    counts = np.bincount((red << 6 | green << 3 | blue).ravel())
    shares = counts[counts > 0] / red.size
    return float(-(shares * np.log2(shares)).sum()) + 0.0  # no negative zero


def scores_file(shard: str, folder: str | None = None) -> Path:
    """Return where the scores of a shard are kept: `<shard>.scores.parquet` beside it, or in `folder`."""
    name = f"{Path(shard).name}.scores.parquet"
    return (Path(folder) if folder else Path(shard).parent) / name


class ShardChances(NamedTuple):
    """Probabilities with which the images of a shard are shown when they are drawn."""

    file: Path
    by_name: dict[str, float]

    def of(self, name: str) -> float:
        """Return the probability of one image.

        Raises:
            UserError: The scores know no such image.
        """
        if name not in self.by_name:
            raise UserError(
                f"The scores {self.file} do not match their shard, they have no row for {name!r}: delete them and run "
                "scripts/score_images.py again."
            )
        return self.by_name[name]


def chances_in(shard: str, curation: Curation) -> ShardChances:
    """Read the scores of a shard.

    Raises:
        UserError: There are none, or they are unreadable.
    """
    file = scores_file(shard, curation.scores)
    if not file.is_file():
        raise UserError(f"{shard} has no scores at {file}: run scripts/score_images.py on the shards first.")
    rows = _read_rows(file)
    by_name = {row["name"]: curation.chance(row["loss"], row["entropy"], row["width"], row["height"]) for row in rows}
    return ShardChances(file, by_name)


def _read_rows(file: Path) -> list[dict[str, Any]]:
    # pyarrow belongs to an extra.
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError("Curation needs pyarrow: pip install 'pixio-robot[pretraining]'.") from error
    try:
        return pyarrow.parquet.read_table(file, columns=["name", "loss", "entropy", "width", "height"]).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"The scores {file} cannot be read: delete them and run scripts/score_images.py.") from error
