"""Pretrain a Pixio encoder as a masked autoencoder on images of one's own.

uv run scripts/pretrain_encoder.py images.path=photos
uv run scripts/pretrain_encoder.py images=shards images.path=web pretraining=vith_imagenet encoder=pixio_vitl
uv run scripts/pretrain_encoder.py images=live pretraining.epochs=null pretraining.steps=2000 run=scenes

With several processes: `torchrun --nproc-per-node 8 scripts/pretrain_encoder.py …`.
"""

import dataclasses
from pathlib import Path

from pixio_robot.cli.entry_points import entry_point, given_settings
from pixio_robot.common.settings import Place, Text, settings
from pixio_robot.encoders.config import EncoderConfig
from pixio_robot.pretraining.config import PretrainConfig
from pixio_robot.pretraining.images import Images


@settings(kw_only=True)
class PretrainEncoder:
    """Settings of the job."""

    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    """The encoder that is trained, of which the name alone counts: weights are `pretraining.start_from`."""
    images: Images
    """Where the images come from."""
    pretraining: PretrainConfig
    """The recipe."""
    output_root: Place = Path("outputs")
    """Folder of everything that is written."""
    cache_dir: Place
    """Where images are kept that are decoded once."""
    run: Text | None = None
    """Name of the run's folder under `<output_root>/pretrain_encoder`; null takes the time."""
    resume: Text | None = None
    """A run's folder or name, `last` for the newest unfinished one, or `auto` (with run=NAME): continue it or begin it."""


@entry_point("pretrain_encoder", PretrainEncoder, finished_by="encoder.safetensors")
def main(settings: PretrainEncoder) -> None:
    """Open the images, train, and say where the encoder is."""
    from pixio_robot.pretraining.job import PretrainingJob, run_job
    from pixio_robot.pretraining.objectives.reconstruction import Reconstruction

    job = PretrainingJob(
        "pretraining", settings.pretraining, settings.images, str(settings.cache_dir), str(settings.output_root)
    )
    # A resumed run has the recipe's name of the encoder.
    given = given_settings(settings, instead={"encoder": "pretraining.variant"})
    run_job(job, Reconstruction, "pretrain_encoder", settings.resume, run=settings.run, given=given)


if __name__ == "__main__":
    main()
