"""Score images in shards for self-curation: reconstruction loss, colour entropy and size."""

from omegaconf import DictConfig
from rich.console import Console

from pixio_robot.cli.entry_points import entry_point


@entry_point("score_images")
def main(cfg: DictConfig) -> None:
    """Load the judge, score every shard that has no table yet, and say what could not be decoded."""
    import importlib.util

    from pixio_robot.common.errors import UserError

    if not all(importlib.util.find_spec(name) for name in ("webdataset", "pyarrow")):
        raise UserError("Scoring needs webdataset and pyarrow: pip install 'pixio-robot[pretraining]'.")
    from pixio_robot.common.progress import phase_progress
    from pixio_robot.pretraining.curation.scoring import load_judge, score_shards

    judge = load_judge(cfg.variant, cfg.encoder, cfg.decoder, cfg.device)
    with phase_progress(Console()) as progress:
        bar = progress.add_task("scoring shards", total=None, note="")
        damaged = score_shards(
            cfg.path,
            judge,
            cfg.masks,
            cfg.seed,
            cfg.batch_size,
            cfg.scores,
            lambda done, total: progress.update(bar, completed=done, total=total),
        )
    print(f"{len(damaged)} images could not be decoded{': ' if damaged else ''}{', '.join(damaged[:10])}")


if __name__ == "__main__":
    main()
