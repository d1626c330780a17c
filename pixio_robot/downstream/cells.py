"""The table of cells: what is measured already is kept, so that an interrupted or extended comparison goes on.

    <output>/cells/<task>/<label>-<digest>/cell.json     result, identity and encoder; pictures and files beside it

The digest is of the task's identity and the encoder with its weights: a cell of other settings is another cell.
"""

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.common.storage.files import write_json
from pixio_robot.common.versions import software_versions
from pixio_robot.downstream.task import CellResult, DownstreamTask
from pixio_robot.encoders import EncoderConfig
from pixio_robot.encoders.config import is_pretrained

CELL_FILE = "cell.json"


@dataclass(frozen=True)
class Cell:
    """One finished cell.

    Attributes:
        task: Name of the task.
        label: Row of the table.
        folder: Where its pictures and files are.
        result: What was measured.
        seconds: How long that took.
    """

    task: str
    label: str
    folder: Path
    result: CellResult
    seconds: float


def fill(
    tasks: Sequence[DownstreamTask], encoders: Mapping[str, EncoderConfig], output: Path, console: Console
) -> list[Cell]:
    """Measure every cell that is missing.

    Args:
        tasks: Their tables.
        encoders: Rows by label; every task's baselines come first.
        output: Folder of the comparison.
        console: Where progress is shown.

    Raises:
        UserError: An encoder does not suit a task, found before anything is measured; or what a task refuses.
    """
    weights = {label: _weights(config) for label, config in encoders.items()}
    rows: dict[str, dict[str, EncoderConfig | str]] = {
        task.name: {**{name: name for name in task.baselines}, **encoders} for task in tasks
    }
    places = {
        (task.name, label): output
        / "cells"
        / task.name
        / f"{_plain(label)}-{_digest(task, encoder, weights.get(label))}"
        for task in tasks
        for label, encoder in rows[task.name].items()
    }
    for task in tasks:
        for label, encoder in rows[task.name].items():
            if isinstance(encoder, EncoderConfig) and not (places[task.name, label] / CELL_FILE).exists():
                task.check(encoder)
    cells = []
    for task in tasks:
        for label, encoder in rows[task.name].items():
            folder = places[task.name, label]
            kept = _load(task.name, label, folder)
            if kept is None:
                console.print(f"{task.title} · {label}", highlight=False)
                folder.mkdir(parents=True, exist_ok=True)
                started = time.monotonic()
                result = task.measure(encoder, folder, console)
                assert set(result.metrics) <= {metric.name for metric in task.metrics}
                kept = Cell(task.name, label, folder, result, time.monotonic() - started)
                _save(kept, task, encoder)
            cells.append(kept)
    return cells


def _weights(config: EncoderConfig) -> str:
    """Return what stands for an encoder's weights: a digest of the file, or the word for them."""
    path = Path(config.weights).expanduser()
    if config.weights == "random" or is_pretrained(config.weights):
        return config.weights
    if not path.is_file():
        raise UserError(f"There is no weights file at {path}.")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _digest(task: DownstreamTask, encoder: EncoderConfig | str, weights: str | None) -> str:
    if isinstance(encoder, str):
        row: Any = encoder
    else:
        row = dataclasses.asdict(encoder) | {"weights": weights}
    text = json.dumps([task.identity(), row], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _plain(label: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "_." else "_" for letter in label)


def _save(cell: Cell, task: DownstreamTask, encoder: EncoderConfig | str) -> None:
    result = dataclasses.asdict(cell.result)
    result["metrics"] = {
        name: [None if math.isnan(value) else value for value in values] for name, values in cell.result.metrics.items()
    }
    write_json(
        cell.folder / CELL_FILE,
        {
            "task": cell.task,
            "label": cell.label,
            "encoder": encoder if isinstance(encoder, str) else dataclasses.asdict(encoder),
            "identity": task.identity(),
            "seconds": round(cell.seconds, 1),
            "result": result,
            "versions": software_versions(),
        },
    )


def _load(task: str, label: str, folder: Path) -> Cell | None:
    """Return a kept cell; None where there is none, or none that can be read."""
    try:
        kept = json.loads((folder / CELL_FILE).read_text(encoding="utf-8"))
        result = CellResult(**kept["result"])
        metrics = {
            name: [math.nan if value is None else float(value) for value in values]
            for name, values in result.metrics.items()
        }
        return Cell(task, label, folder, dataclasses.replace(result, metrics=metrics), float(kept["seconds"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
