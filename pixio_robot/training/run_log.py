"""The machine-readable log of a run: one JSON object a line in `log.jsonl`."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console


class RunLog:
    """Append measurements and phase times of a run to `log.jsonl`, and tell the person about phases."""

    def __init__(self, run_dir: Path, console: Console) -> None:
        """Open the log of a run folder; lines of an earlier, interrupted process are kept."""
        run_dir.mkdir(parents=True, exist_ok=True)
        self.path = run_dir / "log.jsonl"
        self.console = console
        self.phase_seconds: dict[str, float] = {}

    def write(self, phase: str, **values: float | int | str) -> None:
        """Append one line."""
        with self.path.open("a") as file:
            file.write(json.dumps({"phase": phase, **values}) + "\n")

    def discard_after(self, phase: str, step: int) -> None:
        """Drop a phase's lines of later steps than `step`, which a resumed run is going to repeat."""
        if not self.path.exists():
            return
        lines = [json.loads(line) for line in self.path.read_text().splitlines() if line.endswith("}")]
        kept = [line for line in lines if line["phase"] != phase or line.get("step", 0) <= step]
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        temporary.replace(self.path)

    @contextmanager
    def phase(self, name: str, title: str) -> Iterator[None]:
        """Announce a phase, time it, and log its end."""
        self.console.rule(f"[bold]{title}", align="left", style="dim")
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self.phase_seconds[name] = seconds
        self.write(name, event="finished", seconds=round(seconds, 1))
