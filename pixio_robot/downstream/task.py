"""What a downstream task is: something that gives numbers for any encoder, one cell of a table at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console

from pixio_robot.encoders import EncoderConfig, VisionEncoder


@dataclass(frozen=True)
class Metric:
    """A column of a task's table.

    Attributes:
        name: Key in results, for example `delta1`.
        heading: Name for people.
        unit: Of the value times `factor`.
        factor: Shown is the value times this: 100 for per cent.
        higher_is_better: Else lower is.
    """

    name: str
    heading: str
    unit: str = ""
    factor: float = 1.0
    higher_is_better: bool = False


@dataclass(frozen=True)
class CellResult:
    """What a task measured for one encoder.

    Attributes:
        metrics: By metric, one value for each seed, split or repetition; NaN where it has no value.
        intervals: 95 % intervals of those metrics whose nesting the task knows; the others' come from a bootstrap over
            the values.
        pictures: PNG files in the cell's folder, by a caption of one sentence.
        files: Other files in the cell's folder, by what they are.
        record: Plain values (JSON) beside the metrics, such as the best epoch.
    """

    metrics: Mapping[str, Sequence[float]]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)


class DownstreamTask(Protocol):
    """One table: a protocol on a dataset, for any encoder."""

    name: str
    """Unique, made of letters, digits, `_` and `-`: `depth-scenes-linear`."""
    group: str
    """The choice on the command line that brings it: `depth`."""
    title: str
    """For people: `Depth on simulated scenes, linear head`."""
    metrics: Sequence[Metric]
    """The first is the one by which encoders are ranked."""
    baselines: Sequence[str]
    """Labels of rows that need no encoder, such as `guess`."""

    def identity(self) -> dict[str, Any]:
        """Return plain values (JSON): everything that a cell's result depends on but for the encoder."""
        ...

    def check(self, encoder: EncoderConfig) -> None:
        """Find out quickly, before anything is rendered or trained, that an encoder does not suit this task.

        Raises:
            UserError: It does not, or the data is not what it should be.
        """
        ...

    def measure(self, encoder: EncoderConfig | str, folder: Path, console: Console) -> CellResult:
        """Fill a cell.

        What is costly and the same for all encoders (rendering, expert episodes) is made on the first call and kept; what
        was interrupted goes on where it can.

        Args:
            encoder: The encoder, or one of `baselines`.
            folder: Of the cell; exists, and may hold what an interrupted call left.
            console: Where progress is shown.
        """
        ...


def build_encoder(config: EncoderConfig, seed: int = 0) -> VisionEncoder:
    """Build a frozen encoder; random weights are a function of the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VisionEncoder(config).eval()
