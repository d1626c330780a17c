"""Depth and segmentation as tasks of a comparison: one for each data set and head."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from pixio_robot.common.settings import plain
from pixio_robot.downstream.config import Data
from pixio_robot.downstream.dense.cell import HeadCell, guessed_cell
from pixio_robot.downstream.dense.config import DenseProtocol, HeadName
from pixio_robot.downstream.dense.data.class_folders import Ade20k, LoveDa, PascalVoc
from pixio_robot.downstream.dense.data.depth_folders import KittiDepth, NyuDepth
from pixio_robot.downstream.dense.data.folders import PublicFolder
from pixio_robot.downstream.dense.data.scenes import SimulatedScenes
from pixio_robot.downstream.dense.data.sets import DenseData, DenseSource, Kind
from pixio_robot.downstream.dense.features import LEVELS, FrozenEncoder, frozen_encoder
from pixio_robot.downstream.dense.metrics import DEPTH_METRICS, SEGMENTATION_METRICS
from pixio_robot.downstream.scenes import Simulator
from pixio_robot.downstream.task import CellResult, DownstreamTask, Metric, build_encoder
from pixio_robot.encoders import EncoderConfig
from pixio_robot.encoders.intermediate import stages

GUESS = "guess"
_FOLDERS: dict[str, type[PublicFolder]] = {
    folder.name: folder for folder in (NyuDepth, KittiDepth, Ade20k, PascalVoc, LoveDa)
}
_HEADS: dict[HeadName, str] = {"linear": "linear head", "dpt": "DPT head"}
_SETTINGS = ("seeds", "crop", "stride", "flip", "epochs", "evaluate_every", "weight_decay", "precision")


def dense_tasks(
    kind: Kind, protocol: DenseProtocol, data: Data, simulator: Simulator, folder: Path
) -> list[DownstreamTask]:
    """Return a task for each data set of a kind that there is, and each head; where there is none, for simulated scenes.

    Args:
        kind: `depth` or `segmentation`.
        protocol: How heads are trained and tested.
        data: Roots of public data sets.
        simulator: Who renders scenes.
        folder: Where scenes and features are kept.
    """
    roots = {name: getattr(data, name) for name, source in _FOLDERS.items() if source.kind == kind}
    sources: list[DenseSource] = []
    sources += [_FOLDERS[name](root) for name, root in roots.items() if root is not None]
    if not sources:
        sources.append(SimulatedScenes(kind, protocol.scenes, simulator, folder / "scenes"))
    return [DenseTask(source, head, protocol, folder / "features") for source in sources for head in protocol.heads]


class DenseTask:
    """A head for depth or segmentation on one data set, trained on the frozen features of any encoder."""

    baselines: Sequence[str] = (GUESS,)

    def __init__(self, source: DenseSource, head: HeadName, protocol: DenseProtocol, features: Path) -> None:
        """Describe the task; nothing is read yet.

        Args:
            source: Images and their truth.
            head: Which.
            protocol: How it is trained and tested.
            features: Folder where features are kept.
        """
        self.group: str = source.kind
        self.name = f"{source.kind}-{source.name}-{head}"
        self.title = f"{source.kind.capitalize()} on {source.title}, {_HEADS[head]}"
        self.metrics: Sequence[Metric] = _columns(source)
        self._source, self._protocol, self._features = source, protocol, features
        self._head: HeadName = head

    def identity(self) -> dict[str, Any]:
        """Return what results depend on; see `DownstreamTask.identity`."""
        protocol, recipe = self._protocol, self._protocol.recipe_of(self._source.name)
        settings: dict[str, Any] = {name: value for name, value in plain(protocol).items() if name in _SETTINGS}
        settings |= {"batch_size": recipe.batch_size, "learning_rate": recipe.rate(self._head)}
        if self._source.kind == "segmentation":
            settings["scale"] = protocol.scale and list(protocol.scale)
        if self._head == "dpt":
            settings |= {"width": protocol.dpt_width, "channels": list(protocol.dpt_channels)}
        return {"kind": self._source.kind, "head": self._head, "protocol": settings, "data": self._source.identity()}

    def check(self, encoder: EncoderConfig) -> None:
        """Build the encoder and look at the first images; see `DownstreamTask.check`."""
        check_encoder(encoder, self._head, self._protocol.crop)
        self._source.check(self._protocol.crop)

    def measure(self, encoder: EncoderConfig | str, folder: Path, console: Console) -> CellResult:
        """Train the head with each seed and test it; see `DownstreamTask.measure`."""
        data = self.open(console)
        if isinstance(encoder, str):
            return guessed_cell(self._source, data, folder)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        levels = LEVELS if "dpt" in self._protocol.heads else 1
        return self.measure_on(frozen_encoder(encoder, levels, device, self._protocol.precision), data, folder, console)

    def open(self, console: Console) -> DenseData:
        """List or render the images."""
        return self._source.open(console)

    def measure_on(self, encoder: FrozenEncoder, data: DenseData, folder: Path, console: Console) -> CellResult:
        """Fill a cell for anything that gives tokens.

        Args:
            encoder: What gives tokens.
            data: What is trained on and tested by.
            folder: Of the cell.
            console: Where progress is shown.
        """
        cell = HeadCell(self._source, data, self._head, self._protocol, encoder, self._features, console)
        return cell.fill(folder, self.identity())


@functools.cache
def check_encoder(config: EncoderConfig, head: HeadName, crop: int) -> None:
    """Build an encoder and throw it away.

    Raises:
        UserError: It cannot be built, crops do not fit it, or it has not the levels that DPT reads.
    """
    encoder = build_encoder(config)
    encoder.grid(crop, crop)
    if head == "dpt":
        stages(encoder.backbone, LEVELS, config.name)


def _columns(source: DenseSource) -> list[Metric]:
    """Return all metrics, and the first one of the best epoch and of the other tests."""
    first, *others = DEPTH_METRICS if source.kind == "depth" else SEGMENTATION_METRICS

    def like(name: str, heading: str) -> Metric:
        return Metric(
            f"{first.name}_{name}", f"{first.heading}, {heading}", first.unit, first.factor, first.higher_is_better
        )

    beside = [like(name, heading) for name, heading in source.tests[1:]]
    return [first, *beside, *others, like("best", "best epoch")]
