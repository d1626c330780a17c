"""Measure how fast pretraining is, from a plain trainer to this package's, and what each change gains.

uv run scripts/benchmarks/benchmark_pretraining.py
uv run scripts/benchmarks/benchmark_pretraining.py encoder=pixio_vitb device=cuda image_size=256 mask_block=4 batch_size=256
uv run scripts/benchmarks/benchmark_pretraining.py targets=true device=cuda workers=14 output=targets.json

A few minutes on two idle cores. A decoder as the paper's: decoder_dim=512 decoder_depth=32 decoder_heads=16.
With targets=true it is no ladder, but the trainer itself on a GPU: ViT-H, ViT-B and pixio_tiny against what they shall reach.
"""

import dataclasses
from pathlib import Path

from rich.console import Console

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.settings import Count, Place, Switch, Text, settings
from pixio_robot.encoders.config import EncoderConfig


@settings
class BenchmarkPretraining:
    """Settings of the job."""

    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    """What is trained, of which the name alone counts."""
    device: Text = "cpu"
    """torch device."""
    threads: Count = 1
    """Of the training process; the rest of the cores prepare images."""
    workers: Count = 1
    """Processes of the plain trainer's data loader."""
    steps: Count = 6
    """Optimiser steps of a round."""
    rounds: Count = 3
    """Interleaved: all rungs, then all rungs again."""
    image_files: Count = 512
    """Synthetic 160 px JPEG files."""
    image_size: Count = 128
    """Side of the crops in pixels."""
    mask_block: Count = 2
    """Side of a mask block in patches."""
    batch_size: Count = 128
    """Images per step."""
    accumulation: Count = 4
    """Parts of a batch, from the rung of small parts on."""
    decoder_dim: Count = 128
    """Decoder width."""
    decoder_depth: Count = 8
    """Decoder blocks."""
    decoder_heads: Count = 4
    """Decoder attention heads."""
    targets: Switch = False
    """Train ViT-H, ViT-B and pixio_tiny16 as the trainer does on a GPU, against the rates that they shall reach; of the other
    settings device, threads, workers, image_files and output count, and steps, the plain trainer's."""
    target_steps: Count = 60
    """With targets, steps of ViT-H, twice as many of ViT-B, eight times of pixio_tiny16; the second half is timed."""
    output: Place | None = None
    """A JSON file for the table."""


@entry_point("benchmark_pretraining", BenchmarkPretraining, configs=Path(__file__).parent / "configs")
def main(settings: BenchmarkPretraining) -> None:
    """Climb the ladder and print it."""
    import torch
    from pretraining_speed.ladder import ladder, measure
    from pretraining_speed.table import ladder_record, print_ladder

    from pixio_robot.common.precision import bfloat16_slowdown
    from pixio_robot.common.progress import phase_progress
    from pixio_robot.common.storage.files import write_json
    from pixio_robot.images.config import Photometric
    from pixio_robot.pretraining.config import PretrainConfig

    torch.set_num_threads(settings.threads)
    if settings.targets:
        _measure_targets(settings)
        return
    names = ("device", "image_size", "mask_block", "batch_size", "accumulation")
    names += ("decoder_dim", "decoder_depth", "decoder_heads")
    config = PretrainConfig(
        variant=settings.encoder.name,
        steps=settings.steps * settings.rounds,
        lr=1e-3,
        photometric=Photometric(),
        **{name: getattr(settings, name) for name in names},
    )
    console = Console()
    slowdown = bfloat16_slowdown() if torch.device(settings.device).type == "cpu" else 0.0
    if slowdown > 1:
        console.print(
            f"bfloat16 is left out: this processor takes {slowdown:.1f} times as long for it as for float32.",
            highlight=False,
        )
    rungs = ladder(settings.device, None if slowdown > 1 else "bfloat16")
    with phase_progress(console) as progress:
        measurements = measure(
            config, rungs, settings.steps, settings.rounds, settings.image_files, settings.workers, progress
        )
    record = ladder_record(config, measurements, settings.threads, settings.workers)
    print_ladder(record, console)
    if settings.output:
        write_json(settings.output, record)


def _measure_targets(settings: BenchmarkPretraining) -> None:
    import torch
    from pretraining_speed.targets import print_targets, reached, targets

    from pixio_robot.common.errors import UserError
    from pixio_robot.common.progress import phase_progress
    from pixio_robot.common.storage.files import write_json

    if torch.device(settings.device).type != "cuda" or not torch.cuda.is_available():
        raise UserError(
            "targets=true compares with what a GPU's matrix products reach: run it with device=cuda on a machine that has one."
        )
    console = Console()
    records = []
    for target in targets(settings.device, settings.target_steps):
        with phase_progress(console) as progress:
            records.append(reached(target, settings.image_files, settings.steps, settings.workers, progress))
        print_targets(records[-1:], console)
    print_targets(records, console)
    if settings.output:
        write_json(settings.output, {"device": torch.cuda.get_device_name(), "targets": records})


if __name__ == "__main__":
    main()
