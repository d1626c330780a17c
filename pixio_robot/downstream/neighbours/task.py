"""k nearest neighbours as a downstream task."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console
from torch import Tensor

from pixio_robot.common.errors import UserError
from pixio_robot.common.progress import phase_progress
from pixio_robot.common.settings import plain
from pixio_robot.common.statistics import wilson_interval
from pixio_robot.downstream.neighbours.config import NeighboursProtocol
from pixio_robot.downstream.scenes import Scenes, SceneSet, Simulator, scenes
from pixio_robot.downstream.task import CellResult, Metric, build_encoder
from pixio_robot.encoders import EncoderConfig
from pixio_robot.encoders.probing.labelled import ImageFolder, LabelledFiles, file_batches, frame_batches
from pixio_robot.encoders.probing.neighbours import image_features, vote

GUESS = "guess"


class _Part(Protocol):
    """Images to learn from, or to test on."""

    labels: Tensor

    def batches(self) -> Iterator[Tensor]:
        """Yield images in [0, 1], in order."""
        ...


class _Files:
    def __init__(self, files: LabelledFiles, protocol: NeighboursProtocol) -> None:
        self._files, self._protocol = files, protocol
        self.labels = torch.tensor(files.labels)

    def batches(self) -> Iterator[Tensor]:
        return file_batches(self._files.files, self._protocol.resize, self._protocol.crop)


class _Frames:
    def __init__(self, rendered: Scenes) -> None:
        self._rendered = rendered
        self.labels = torch.from_numpy(rendered.family_N.copy())

    def batches(self) -> Iterator[Tensor]:
        return frame_batches(self._rendered.frames_NHWC)


class NeighboursTask:
    """How often the vote of an image's nearest neighbours names its class."""

    group = "neighbours"
    baselines: Sequence[str] = (GUESS,)

    def __init__(self, protocol: NeighboursProtocol, images: ImageFolder | tuple[Simulator, Path]) -> None:
        """Look for neighbours among a user's images, or among the scenes of a simulator, kept in a folder."""
        self._protocol, self._images = protocol, images
        of_files = isinstance(images, ImageFolder)
        self.name = f"neighbours-{images.root.name}" if of_files else "neighbours-scenes"
        self.title = f"k-NN on {images.root.name}" if of_files else "k-NN on the families of simulated scenes"
        # The paper's order: the best k is the one that is compared.
        self.metrics: Sequence[Metric] = [
            Metric("best", "best k", "%", 100, higher_is_better=True),
            *(Metric(f"k{k}", f"k = {k}", "%", 100, higher_is_better=True) for k in protocol.neighbours),
        ]

    def identity(self) -> dict[str, Any]:
        """Return the protocol and the images."""
        if isinstance(self._images, ImageFolder):
            of = {"root": str(self._images.root.resolve()), "classes": list(self._images.classes)}
            of |= {"training": len(self._images.training.files), "test": len(self._images.test.files)}
        else:
            of = {"families": list(self._families())}
        return plain(self._protocol) | of

    def check(self, encoder: EncoderConfig) -> None:
        """Refuse an encoder that the images do not fit."""
        side = self._protocol.crop if isinstance(self._images, ImageFolder) else self._protocol.scene_size
        build_encoder(encoder).grid(side, side)

    def measure(self, encoder: EncoderConfig | str, folder: Path, console: Console) -> CellResult:
        """Encode all images and let the neighbours vote."""
        del folder  # measured whole or not at all
        training, test = self._parts(console)
        classes = int(training.labels.max()) + 1
        if isinstance(encoder, str):
            commonest = training.labels.bincount().argmax()
            right = int((test.labels == commonest).sum())
            return _result({metric.name: right for metric in self.metrics[1:]}, len(test.labels))
        built = build_encoder(encoder)
        with phase_progress(console) as progress:
            total = len(training.labels) + len(test.labels)
            bar = progress.add_task("encoding", total=total, note="")

            def encoded(part: _Part) -> Tensor:
                vectors = []
                for images_BCHW in part.batches():
                    vectors.append(image_features(built, images_BCHW))
                    progress.advance(bar, len(images_BCHW))
                return torch.cat(vectors)

            known, tested = encoded(training), encoded(test)
        protocol = self._protocol
        told = vote(known, training.labels, tested, protocol.neighbours, classes, protocol.temperature)
        return _result(
            {f"k{k}": int((classes_M == test.labels).sum()) for k, classes_M in told.items()}, len(test.labels)
        )

    def _parts(self, console: Console) -> tuple[_Part, _Part]:
        protocol = self._protocol
        if isinstance(self._images, ImageFolder):
            return _Files(self._images.training, protocol), _Files(self._images.test, protocol)
        simulator, folder = self._images
        families = self._families()
        sets = [
            SceneSet(families, count * len(families), protocol.scene_size, seed)
            for count, seed in ((protocol.scenes, protocol.scene_seed), (protocol.test_scenes, protocol.scene_seed + 1))
        ]
        training, test = (_Frames(scenes(wanted, simulator, folder, console)) for wanted in sets)
        return training, test

    def _families(self) -> tuple[str, ...]:
        assert not isinstance(self._images, ImageFolder)
        return self._protocol.families or tuple(self._images[0].families)


def _result(right: Mapping[str, int], images: int) -> CellResult:
    """Return shares of the images that are told right, by metric, with Wilson's intervals; the best of them comes first."""
    counts = {"best": max(right.values()), **right}
    intervals = {name: wilson_interval(count, images) for name, count in counts.items()}
    return CellResult({name: [count / images] for name, count in counts.items()}, intervals)


def neighbours_task(
    protocol: NeighboursProtocol, images: Path | None, simulator: Simulator, folder: Path
) -> NeighboursTask:
    """Choose the user's images where there are any, else simulated scenes.

    Raises:
        UserError: See `ImageFolder.open`; or the crop is larger than the resized images.
    """
    if protocol.crop > protocol.resize:
        raise UserError(
            f"protocol.neighbours.crop={protocol.crop} is larger than protocol.neighbours.resize={protocol.resize}: "
            f"set it to at most that."
        )
    return NeighboursTask(protocol, ImageFolder.open(images) if images else (simulator, folder))
