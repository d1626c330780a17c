"""One cell: a head trained with each seed on the features of one encoder, tested, and drawn."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn

from pixio_robot.downstream.dense.batches import DenseBatches
from pixio_robot.downstream.dense.config import DenseProtocol, HeadName
from pixio_robot.downstream.dense.data.sets import DenseData, DenseSet, DenseSource
from pixio_robot.downstream.dense.features import Features, FrozenEncoder, keep_features
from pixio_robot.downstream.dense.guessing import guess
from pixio_robot.downstream.dense.heads import DepthOutput, DPTHead, LinearHead
from pixio_robot.downstream.dense.metrics import HIGHER_IS_BETTER, DepthScore, Score, SegmentationScore, intervals
from pixio_robot.downstream.dense.objective import save_head
from pixio_robot.downstream.dense.pictures import picture
from pixio_robot.downstream.dense.testing import DenseTest
from pixio_robot.downstream.dense.training import HeadResult, HeadTraining, train_head
from pixio_robot.downstream.task import CellResult
from pixio_robot.images.preprocessing import frames_to_images
from pixio_robot.reports.charts import save_picture

PICTURE = "predictions.png"
_CAPTION = "Test images, their truth, and what was predicted."
_SHOWN = 4  # images of a picture
_GIB = 1 << 30


@dataclass(frozen=True)
class HeadCell:
    """What a cell is filled with.

    Attributes:
        source: Where the images are from.
        data: The images.
        head: Which head.
        protocol: How it is trained and tested.
        encoder: What it stands on.
        features: Folder where features are kept.
        console: Where progress is shown.
    """

    source: DenseSource
    data: DenseData
    head: HeadName
    protocol: DenseProtocol
    encoder: FrozenEncoder
    features: Path
    console: Console

    def fill(self, folder: Path, identity: dict[str, Any]) -> CellResult:
        """Train with each seed, from where an interrupted call was.

        Args:
            folder: Of the cell.
            identity: Plain values that a resumed training must share.
        """
        kept = self._keep(self.data.training, mirrored=self.protocol.flip)
        tests = {name: self._test(images) for name, images in self.data.tests.items()}
        channels, pyramid = self._channels()
        results = []
        for seed in self.protocol.seeds:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                head = build_head(self.head, self.source, channels, self.protocol, pyramid=pyramid)
            training = self._training(kept, tests, seed, identity)
            results.append(train_head(training, head, seed, folder / f"seed-{seed}", self.encoder.device, self.console))
            save_head(head, folder / f"head-{seed}.safetensors")
            if seed == self.protocol.seeds[0]:
                self._draw(next(iter(tests.values())), head, folder)
        for seed in self.protocol.seeds:
            shutil.rmtree(folder / f"seed-{seed}/checkpoints", ignore_errors=True)
        return cell_result(results, self.data, score_of(self.source), self.protocol.seeds)

    def _keep(self, images: DenseSet, *, mirrored: bool) -> Features | None:
        protocol = self.protocol
        if self.source.kind == "segmentation" and protocol.scale is not None and images is self.data.training:
            return None
        limit = protocol.cache_gib * _GIB
        return keep_features(
            self.encoder,
            images,
            protocol.crop,
            mirrored=mirrored,
            limit=limit,
            folder=self.features,
            console=self.console,
        )

    def _test(self, images: DenseSet) -> DenseTest:
        protocol, kept = self.protocol, self._keep(images, mirrored=False)
        kind, last_only = self.source.kind, self.head == "linear"
        return DenseTest(
            images, self.encoder, kept, kind, protocol.crop, protocol.stride, protocol.precision, last_only
        )

    def _training(
        self, kept: Features | None, tests: dict[str, DenseTest], seed: int, identity: dict[str, Any]
    ) -> HeadTraining:
        protocol, recipe = self.protocol, self.protocol.recipe_of(self.source.name)
        batches = DenseBatches(
            self.data.training,
            self.encoder,
            kept,
            self.source.kind,
            protocol.crop,
            recipe.batch_size,
            protocol.flip,
            protocol.scale,
            self.head == "linear",
            seed,
        )
        return HeadTraining(
            kind=self.source.kind,
            depth_range=self.source.depth_range,
            batches=batches,
            tests=tests,
            score=score_of(self.source),
            epochs=protocol.epochs,
            evaluate_every=protocol.evaluate_every,
            learning_rate=recipe.rate(self.head),
            weight_decay=protocol.weight_decay,
            precision=protocol.precision,
            identity=identity | {"seed": seed, "features": self.encoder.key},
        )

    def _channels(self) -> tuple[list[int], bool]:
        """Return the channels of the levels, and whether their grids are a pyramid's."""
        black = frames_to_images(torch.zeros(1, self.protocol.crop, self.protocol.crop, 3, dtype=torch.uint8))
        levels = self.encoder.levels(black)
        grids = {level.shape[-2:] for level in levels}
        return [level.shape[1] for level in levels], len(grids) > 1

    def _draw(self, test: DenseTest, head: nn.Module, folder: Path) -> None:
        head.eval()
        rows = [round(row) for row in np.linspace(0, len(test.images) - 1, _SHOWN + 2)[1:-1]]
        predictions = [next(iter(test.predictions(head, range(row, row + 1)))) for row in rows]
        draw_rows(self.source, test.images, rows, predictions, folder)


def build_head(
    name: HeadName, source: DenseSource, channels: Sequence[int], protocol: DenseProtocol, *, pyramid: bool = False
) -> nn.Module:
    """Build a head with random weights: levels and size → metres (B, 1, H, W), or scores of classes (B, K, H, W)."""
    outputs = 1 if source.kind == "depth" else len(source.classes)
    if name == "linear":
        head: nn.Module = LinearHead(channels, outputs)
    else:
        head = DPTHead(channels, outputs, protocol.dpt_width, protocol.dpt_channels, pyramid=pyramid)
    return DepthOutput(head, source.depth_range[1]) if source.kind == "depth" else head


def score_of(source: DenseSource) -> Score:
    """Return how predictions for a data set are judged."""
    return DepthScore(source.depth_range) if source.kind == "depth" else SegmentationScore(len(source.classes))


def guessed_cell(source: DenseSource, data: DenseData, folder: Path) -> CellResult:
    """Fill the cell that needs no encoder."""
    predict, score = guess(data.training, source.kind, source.depth_range, len(source.classes)), score_of(source)
    images, metrics = {}, {}
    for name, test in data.tests.items():
        truths = (test.truth(row) for row in range(len(test)))
        images[name] = np.stack([score.image(predict((truth.shape[0], truth.shape[1])), truth) for truth in truths])
        metrics[name] = score.metrics(images[name])
    test = next(iter(data.tests.values()))
    rows = [round(row) for row in np.linspace(0, len(test) - 1, _SHOWN + 2)[1:-1]]
    shapes = [test.truth(row).shape for row in rows]
    draw_rows(source, test, rows, [predict((shape[0], shape[1])) for shape in shapes], folder)
    return cell_result([HeadResult({0: metrics}, images)], data, score, ())


def draw_rows(
    source: DenseSource, test: DenseSet, rows: Sequence[int], predictions: Sequence[np.ndarray], folder: Path
) -> None:
    """Draw some test images with truth and prediction."""
    images, truths = [test.image(row) for row in rows], [test.truth(row) for row in rows]
    save_picture(picture(images, truths, predictions, source.kind, source.depth_range), folder / PICTURE)


def cell_result(results: Sequence[HeadResult], data: DenseData, score: Score, seeds: Sequence[int]) -> CellResult:
    """Put the seeds' results together: metrics of the last epoch, and of the first one the best beside it.

    Args:
        results: Of the seeds.
        data: What was tested by.
        score: How.
        seeds: For the names of files.
    """
    main, *others = data.tests
    metrics: dict[str, list[float]] = {}
    best: dict[str, list[list[float]]] = {}
    for result in results:
        last = result.epochs[max(result.epochs)]
        for name, value in last[main].items():
            metrics.setdefault(name, []).append(value)
        ranked = next(iter(last[main]))
        for other in others:
            metrics.setdefault(f"{ranked}_{other}", []).append(last[other][ranked])
        for name in last[main]:
            values = {epoch: tests[main][name] for epoch, tests in result.epochs.items()}
            chosen = (max if name in HIGHER_IS_BETTER else min)(values, key=lambda epoch, values=values: values[epoch])
            best.setdefault(name, []).append([values[chosen], chosen])
        metrics.setdefault(f"{ranked}_best", []).append(best[ranked][-1][0])
    limits: dict[str, tuple[float, float]] = {}
    for number, (name, test) in enumerate(data.tests.items()):
        found = intervals(score, np.stack([result.images[name] for result in results]), test.groups)
        limits |= found if not number else {f"{ranked}_{name}": found[ranked] for ranked in [next(iter(found))]}
    files = {f"weights of the head of seed {seed}": f"head-{seed}.safetensors" for seed in seeds}
    return CellResult(metrics, limits, {_CAPTION: PICTURE}, files, {"best_value_and_epoch": best})
