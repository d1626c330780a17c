"""Score images in shards for self-curation: reconstruction loss, colour entropy and size.

uv run scripts/score_images.py path=web
uv run scripts/score_images.py path=web/s-{0000..0099}.tar scores=scores device=cuda batch_size=512
uv run scripts/score_images.py path=web encoder_weights=run/encoder.safetensors decoder_weights=run/decoder.safetensors

In parts, at once: path=web part=1 parts=8, and so on; the same with parts=8 alone looks that all is there.
A second run goes on where the first one stopped.
"""

from collections.abc import Sequence

from rich.console import Console

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.errors import UserError
from pixio_robot.common.settings import Count, Text, Whole, settings
from pixio_robot.common.storage.parts import Parts


@settings(kw_only=True)
class ScoreImages(Parts):
    """Settings of the job."""

    path: Text | tuple[Text, ...]
    """A folder of .tar shards, brace notation, or any URL that webdataset opens; or several."""
    scores: Text | None = None
    """Folder of the tables; null puts each beside its shard."""
    variant: Text = "pixio_tiny16"
    """timm name of the encoder."""
    encoder_weights: Text | None = None
    """encoder.safetensors of a run on the raw images; null takes what ships with the package."""
    decoder_weights: Text | None = None
    """decoder.safetensors of the same run."""
    masks: Count = 4
    """Masks per image; the loss is the mean over them."""
    seed: Whole = 0
    """Seed of the masks."""
    batch_size: Count = 64
    """Images at once."""
    device: Text = "cpu"
    """torch device."""


@entry_point("score_images", ScoreImages)
def main(settings: ScoreImages) -> None:
    """Load the scorer, score every shard that has no table yet, and say what could not be decoded."""
    import importlib.util

    if not all(importlib.util.find_spec(name) for name in ("webdataset", "pyarrow")):
        raise UserError("Scoring needs webdataset and pyarrow: pip install 'pixio-robot[pretraining]'.")
    from pixio_robot.common.progress import phase_progress
    from pixio_robot.pretraining.curation.scoring import folder_of_tables, load_judge, score_shards
    from pixio_robot.pretraining.sources.curation import scores_file
    from pixio_robot.pretraining.sources.shards import find_shards

    judge = load_judge(settings.variant, settings.encoder_weights, settings.decoder_weights, settings.device)
    shards = find_shards(settings.path)

    def score(shards: Sequence[str]) -> None:
        with phase_progress(Console()) as progress:
            bar = progress.add_task("scoring shards", total=None, note="")
            damaged = score_shards(
                shards,
                judge,
                settings.masks,
                settings.seed,
                settings.batch_size,
                settings.scores,
                lambda done, total: progress.update(bar, completed=done, total=total),
            )
        print(f"{len(damaged)} images could not be decoded{': ' if damaged else ''}{', '.join(damaged[:10])}")
        for shard in shards[:1]:
            print(f"scores {scores_file(shard, settings.scores)}{' and beside it' if shards[1:] else ''}")

    if settings.parts is None:
        score(shards)
        return
    made_by = {"judge": judge.name, "masks": settings.masks, "seed": settings.seed}
    parts = settings.of(folder_of_tables(shards, settings.scores), shards, made_by)
    if settings.part is not None:
        parts.make(lambda some, _: score(some))
        return
    parts.joined()
    absent = [str(file) for file in (scores_file(shard, settings.scores) for shard in shards) if not file.is_file()]
    if absent:
        raise UserError(
            f"{absent[0]}{f' and {len(absent) - 1} more tables are' if absent[1:] else ' is'} not there although all parts were "
            "made: copy them there, or score what is missing without part= and parts=."
        )
    score(shards)


if __name__ == "__main__":
    main()
