"""Measure what the features of dense heads cost beside the bare forward pass of their encoder.

uv run scripts/benchmarks/benchmark_features.py
uv run scripts/benchmarks/benchmark_features.py encoder=pixio_tiny side=128 number=512
uv run scripts/benchmarks/benchmark_features.py encoder=dinov2_vits encoder.weights=random side=224

Both in one process, in turn, by the same batches: images to four levels of features kept on the disk, and normalised images to
the encoder's output, which nobody keeps. A few minutes for a ViT-B on two idle cores.
"""

import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

from rich.console import Console

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.settings import Count, settings
from pixio_robot.encoders.config import EncoderConfig


@settings(kw_only=True)
class BenchmarkFeatures:
    """Settings of the job."""

    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    """Whose features."""
    side: Count = 256
    """Side of the images in pixels."""
    number: Count = 96
    """Images of a round."""
    rounds: Count = 5
    """Interleaved."""
    threads: Count = 2
    """torch's."""


@entry_point("benchmark_features", BenchmarkFeatures, configs=Path(__file__).parent / "configs")
def main(settings: BenchmarkFeatures) -> None:
    """Time both in turn and print the ratio."""
    import numpy as np
    import torch

    from pixio_robot.downstream.dense.data.sets import DenseSet
    from pixio_robot.downstream.dense.features import BATCH, LEVELS, frozen_encoder, keep_features
    from pixio_robot.downstream.task import build_encoder
    from pixio_robot.images.preprocessing import frames_to_images

    torch.set_num_threads(settings.threads)
    count, side = settings.number, settings.side
    frames_NHWC = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    images = DenseSet([str(row) for row in range(count)], lambda row: frames_NHWC[row], lambda row: frames_NHWC[row])
    images = dataclasses.replace(images, side=side, key="random")
    frozen = frozen_encoder(settings.encoder, LEVELS, torch.device("cpu"), "float32")
    bare = build_encoder(settings.encoder)
    batches = [bare.preprocess(batch) for batch in frames_to_images(torch.from_numpy(frames_NHWC)).split(BATCH)]

    def forward(_: Path) -> None:
        with torch.no_grad():
            for batch_BCHW in batches:
                bare.backbone.forward_features(batch_BCHW)

    def features(folder: Path) -> None:
        keep_features(
            frozen, images, side, mirrored=False, limit=float("inf"), folder=folder, console=Console(quiet=True)
        )

    seconds: dict[str, list[float]] = {"bare forward pass": [], "features, kept": []}
    for _ in range(settings.rounds + 1):
        for of_name, call in zip(seconds.values(), (forward, features), strict=True):
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                call(Path(folder))
                of_name.append(time.perf_counter() - began)
    rounds = [of_name[1:] for of_name in seconds.values()]  # the first warms up
    ratios = [kept / bare_ for bare_, kept in zip(*rounds, strict=True)]
    console = Console()
    for name, of_name in zip(seconds, rounds, strict=True):
        console.print(f"{name}: {count / statistics.median(of_name):.1f} images/s", highlight=False)
    console.print(
        f"ratio of times: {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f} over {settings.rounds} rounds)",
        highlight=False,
    )


if __name__ == "__main__":
    main()
