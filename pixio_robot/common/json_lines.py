"""Files of one JSON object a line, in which a killed process may have left half a line."""

import contextlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pixio_robot.common.files import write_text


def append_lines(file: Path, records: Iterable[dict[str, Any]]) -> None:
    """Append one JSON object a line."""
    with file.open("a+b") as stream:
        stream.seek(max(stream.seek(0, 2) - 1, 0))
        after_half_a_line = stream.read(1) not in (b"", b"\n")
        text = "".join(json.dumps(record) + "\n" for record in records)
        stream.write(("\n" * after_half_a_line + text).encode())


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Return the objects of all whole lines; none if there is no file."""
    if not file.exists():
        return []
    records = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return [record for record in records if isinstance(record, dict)]


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
