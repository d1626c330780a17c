"""Files of one JSON object a line, in which a killed process may have left half a line."""

import functools
import json
import logging
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pixio_robot.common.storage.files import write_text

logger = logging.getLogger(__name__)


def append_lines(file: Path, records: Iterable[dict[str, Any]]) -> None:
    """Append one JSON object a line."""
    with file.open("a+b") as stream:
        stream.seek(max(stream.seek(0, 2) - 1, 0))
        after_half_a_line = stream.read(1) not in (b"", b"\n")
        text = "".join(json.dumps(record) + "\n" for record in records)
        stream.write(("\n" * after_half_a_line + text).encode())


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Return the objects of all whole lines; none if there is no file. What is damaged is named once, and left out."""
    if not file.is_file():
        return []
    records = []
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").split("\n"), 1):
        try:
            record = json.loads(line) if line else None
        except (ValueError, RecursionError):
            record = {"step": line}
        if isinstance(record, dict) and _fits(record):
            records.append(record)
        elif line:
            _warn_once(str(file), number)
    return records


def _fits(record: dict[str, Any]) -> bool:
    """Tell whether those values of a log's line that somebody reads are what they should be."""
    return all(_IS[kind](record[name]) for kind, names in _READ.items() for name in names if name in record)


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or abs(value) <= sys.float_info.max


_LARGEST = 1 << 53
_READ = {
    "text": ("phase", "event"),
    "texts": ("command", "skipped_images"),
    "count": ("step", "at_step", "trainable_parameters", "steps", "processes"),
    "count or none": ("images",),  # of a stream
    "number": ("loss", "success_rate", "held_out_error", "lr", "images_per_second", "linear_probe", "knn"),
    "duration": ("seconds",),
}
_IS: dict[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "texts": lambda value: isinstance(value, list) and all(isinstance(text, str) for text in value),
    "count": lambda value: type(value) is int and 0 <= value < _LARGEST,
    "count or none": lambda value: value is None or _IS["count"](value),
    "number": _is_number,
    "duration": lambda value: _is_number(value) and 0 <= value < _LARGEST,
}


@functools.cache
def _warn_once(file: str, number: int) -> None:
    logger.warning("%s, line %d is damaged, and left out", file, number)


def seconds_of_phases(log: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Return the seconds of every phase that the records of a run's log say is finished, in order.

    A phase that a resumed run finished again adds up.
    """
    seconds: dict[str, float] = {}
    for record in log:
        if record.get("event") == "finished" and "phase" in record and "seconds" in record:
            seconds[record["phase"]] = seconds.get(record["phase"], 0.0) + float(record["seconds"])
    return seconds


def keep_lines(file: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Drop the other lines; a crash on the way leaves the file as it was."""
    write_text(file, "".join(json.dumps(record) + "\n" for record in read_lines(file) if keep(record)))
