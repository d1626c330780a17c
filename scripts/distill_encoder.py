"""Distil any encoder into a smaller Pixio encoder on images of one's own.

uv run scripts/distill_encoder.py images.path=photos distillation.teacher=pixio_vitb16
uv run scripts/distill_encoder.py encoder=pixio_small images=demos images.path=outputs/demos/lift.zarr
uv run scripts/distill_encoder.py distillation=vit1b_vith distillation.epochs=10 images=shards images.path=web

With several processes: `torchrun --nproc-per-node 8 scripts/distill_encoder.py …`.
"""

import dataclasses
from pathlib import Path

from pixio_robot.cli.entry_points import entry_point, given_settings
from pixio_robot.common.settings import Place, Text, settings
from pixio_robot.encoders.config import EncoderConfig
from pixio_robot.pretraining.config import DistillConfig
from pixio_robot.pretraining.images import Images


@settings(kw_only=True)
class DistillEncoder:
    """Settings of the job."""

    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    """The encoder that is trained, of which the name alone counts: weights are `distillation.start_from`."""
    images: Images
    """Where the images come from."""
    distillation: DistillConfig
    """The recipe."""
    output_root: Place = Path("outputs")
    """Folder of everything that is written."""
    cache_dir: Place
    """Where images are kept that are decoded once."""
    run: Text | None = None
    """Name of the run's folder under `<output_root>/distill_encoder`; null takes the time."""
    resume: Text | None = None
    """A run's folder or name, `last` for the newest unfinished one, or `auto` (with run=NAME): continue it or begin it."""


@entry_point("distill_encoder", DistillEncoder, finished_by="encoder.safetensors")
def main(settings: DistillEncoder) -> None:
    """Open the images, train, and say where the encoder is."""
    from pixio_robot.pretraining.job import PretrainingJob, run_job
    from pixio_robot.pretraining.objectives.distillation import Distillation

    job = PretrainingJob(
        "distillation", settings.distillation, settings.images, str(settings.cache_dir), str(settings.output_root)
    )
    # A resumed run has the recipe's name of the encoder.
    given = given_settings(settings, instead={"encoder": "distillation.variant"})
    run_job(job, Distillation, "distill_encoder", settings.resume, run=settings.run, given=given)


if __name__ == "__main__":
    main()
