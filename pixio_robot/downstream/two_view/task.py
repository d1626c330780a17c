"""Two-view 3D as tasks of the comparison: rendered pairs, or those of a user's folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from pixio_robot.common.errors import UserError
from pixio_robot.common.settings import plain
from pixio_robot.common.statistics import bootstrap_interval
from pixio_robot.downstream.config import Data
from pixio_robot.downstream.scenes import Simulator
from pixio_robot.downstream.task import CellResult, Metric, build_encoder
from pixio_robot.downstream.two_view.clouds import draw_clouds, write_ply
from pixio_robot.downstream.two_view.config import TwoViewProtocol
from pixio_robot.downstream.two_view.data import Pairs, chosen_pairs, read_pairs, rendered_set, users_set
from pixio_robot.downstream.two_view.geometry import Geometry, mean_distance
from pixio_robot.downstream.two_view.head import TwoViewHead
from pixio_robot.downstream.two_view.losses import Prediction
from pixio_robot.downstream.two_view.metrics import METRICS, POSE_METRICS, pair_errors, per_pair_auc, values_of
from pixio_robot.downstream.two_view.training import pair_tokens, standardise, tell, train_head
from pixio_robot.downstream.two_view.wai import Scene
from pixio_robot.encoders import EncoderConfig

IDENTITY, MEAN_DEPTH = "identity_pose", "mean_depth"
_WIDER = (5, 10, 15, 20, 25, 30)  # degrees, of the AUC that is recorded beside the metrics


@dataclass
class TwoViewTask:
    """Train a head on some pairs' frozen tokens, and judge it on others.

    Attributes:
        name: See `DownstreamTask`.
        title: See `DownstreamTask`.
        protocol: How.
        source: What the data are, in plain values.
        sets: Gives the scenes to train and to test on; called once.
    """

    name: str
    title: str
    protocol: TwoViewProtocol
    source: dict[str, Any]
    sets: Callable[[Console], tuple[list[Scene], list[Scene]]]
    group: str = "two_view"
    metrics: Sequence[Metric] = METRICS
    baselines: Sequence[str] = (IDENTITY, MEAN_DEPTH)
    _pairs: tuple[Pairs, Pairs] | None = field(default=None, repr=False)

    def identity(self) -> dict[str, Any]:
        """Return the protocol and the data."""
        return plain(self.protocol) | {"source": self.source}

    def check(self, encoder: EncoderConfig) -> None:
        """Find out whether the grid of points is a multiple of the encoder's patch grid.

        Raises:
            UserError: It is not; or see `VisionEncoder`.
        """
        _grid(build_encoder(encoder), self.protocol)

    def measure(self, encoder: EncoderConfig | str, folder: Path, console: Console) -> CellResult:
        """Train and judge a head for each seed, or judge a guess; see `DownstreamTask`."""
        train, test = self._read(console)
        rows = torch.arange(len(test.names))
        truth = test.truth(rows)
        if isinstance(encoder, str):
            told, scale_N = guess(train, test)
            values = values_of(pair_errors(told, scale_N, truth))
            posed = encoder == IDENTITY
            kept = {name: value.tolist() for name, value in values.items() if (name in POSE_METRICS) == posed}
            means = {metric.name: [float(np.mean(kept.get(metric.name, np.nan)))] for metric in METRICS}
            return CellResult(means, {name: bootstrap_interval([value]) for name, value in kept.items()})
        vision = build_encoder(encoder)
        grid = _grid(vision, self.protocol)
        train_tokens, standard = standardise(pair_tokens(vision, train, console))
        test_tokens, _ = standardise(pair_tokens(vision, test, console), standard)
        by_seed: dict[str, list[list[float]]] = {metric.name: [] for metric in METRICS}
        wider, pictures, files = [], {}, {}
        for number, seed in enumerate(self.protocol.seeds):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                head = TwoViewHead(vision.width, grid, self.protocol)
            identity = self.identity() | {"encoder": plain(encoder)}
            train_head(head, train_tokens, train, self.protocol, seed, identity, folder / f"seed-{seed}", console)
            told = tell(head, test_tokens, test)
            errors = pair_errors(told.geometry, told.scale_B, truth)
            for name, value in values_of(errors).items():
                by_seed[name].append(value.tolist())
            wider.append(float(per_pair_auc(errors, _WIDER).mean()))
            if number == 0:
                pictures, files = _write_clouds(told, truth, test, self.protocol.clouds, folder)
        return CellResult(
            {name: [float(np.mean(values)) for values in seeds] for name, seeds in by_seed.items()},
            {name: bootstrap_interval(seeds) for name, seeds in by_seed.items()},
            pictures,
            files,
            {"pose_auc30": wider, "pairs": {"train": len(train.names), "test": len(test.names)}},
        )

    def _read(self, console: Console) -> tuple[Pairs, Pairs]:
        if self._pairs is None:
            protocol = self.protocol
            chosen = [
                chosen_pairs(scenes, protocol.covisibility, protocol.pairs_per_scene) for scenes in self.sets(console)
            ]
            train, test = (read_pairs(some, protocol.image_size, protocol.points) for some in chosen)
            self._pairs = train, test
        return self._pairs


def two_view_tasks(protocol: TwoViewProtocol, data: Data, simulator: Simulator, folder: Path) -> list[TwoViewTask]:
    """Return the task on a user's folder in the WAI layout, or the one on rendered pairs where there is none.

    Args:
        protocol: How.
        data: Where `wai` may be.
        simulator: Who renders pairs.
        folder: Where rendered sets are kept.

    Raises:
        UserError: The folder is not in this layout; or the simulator renders no pairs.
    """
    if data.wai is not None:
        sets = users_set(data.wai.expanduser(), protocol.test_share)
        title = "Two-view 3D on your scenes"
        return [TwoViewTask("two_view-wai", title, protocol, {"wai": str(data.wai)}, lambda console: sets)]
    if simulator.pairs is None:
        raise UserError("This simulator renders no pairs of views: give a folder of scenes as data.wai.")
    return [
        TwoViewTask(
            "two_view-scenes",
            "Two-view 3D on simulated scenes",
            protocol,
            {"scenes": "rendered"},
            lambda console: rendered_set(protocol, simulator, folder, console),
        )
    ]


def guess(train: Pairs, test: Pairs) -> tuple[Geometry, Tensor]:
    """Return what can be told without looking: training's mean rays, geometric mean depth and scale, and no motion."""
    rows = torch.arange(len(train.names))
    truth = train.truth(rows)
    known = truth.known_BVhw.float()
    logarithms = (truth.distance_BVhw.clamp(min=1e-6).log() * known).sum((0, 1)) / known.sum((0, 1)).clamp(min=1)
    rays = torch.nn.functional.normalize(truth.rays_BVhw3.mean((0, 1)), dim=-1)
    shape = test.depth_NVhw.shape
    quaternion_4 = torch.tensor([1.0, 0.0, 0.0, 0.0])
    told = Geometry(
        rays.expand(*shape, 3),
        logarithms.exp().expand(shape),
        quaternion_4.expand(*shape[:2], 4),
        torch.zeros(*shape[:2], 3),
        test.depth_NVhw > 0,
    )
    mean = mean_distance(truth.world_points, truth.known_BVhw).log().mean().exp()
    return told, mean / mean_distance(told.world_points, told.known_BVhw)


def _grid(encoder: Any, protocol: TwoViewProtocol) -> tuple[int, int]:  # noqa: ANN401
    h, w = encoder.grid(protocol.image_size, protocol.image_size)
    if protocol.points % h or protocol.points % w:
        raise UserError(
            f"{encoder.config.name} has {h}×{w} patches on images of {protocol.image_size} px, which do not divide "
            f"two_view.points={protocol.points}: set two_view.points={max(1, round(protocol.points / h)) * h}."
        )
    return h, w


def _write_clouds(
    told: Prediction, truth: Geometry, pairs: Pairs, count: int, folder: Path
) -> tuple[dict[str, str], dict[str, str]]:
    """Draw and write pairs spread over the test; return pictures by caption and files by what they are."""
    pictures, files = {}, {}
    said, side = told.geometry.in_view_0(), pairs.rays_NVhw3.shape[2]
    steps = ((np.arange(side) + 0.5) * pairs.images_NVHWC.shape[2] / side).astype(int)
    for number, row in enumerate(np.linspace(0, len(pairs.names) - 1, count).astype(int)):
        images = pairs.images_NVHWC[row].numpy()
        colours = images[:, steps][:, :, steps]
        true_known = truth.known_BVhw[row].numpy()
        shown = {
            "predicted": (said.world_points[row] * told.scale_B[row], (told.mask_BVhw[row] > 0).numpy()),
            "true": (truth.world_points[row], true_known),
        }
        clouds = {name: (points.numpy()[mask], colours[mask]) for name, (points, mask) in shown.items()}
        for name, (points, tints) in clouds.items():
            file = f"cloud-{number}-{name}.ply"
            write_ply(folder / file, points, tints)
            files[f"Points of {pairs.names[row]}, {name}"] = file
        places = ((said.translation_BV3[row, 1] * told.scale_B[row]).numpy(), truth.translation_BV3[row, 1].numpy())
        file = f"cloud-{number}.png"
        draw_clouds(folder / file, (images[0], images[1]), clouds["predicted"], clouds["true"], places)
        pictures[f"{pairs.names[row]}: two views, and their points as predicted and as they are."] = file
    return pictures, files
