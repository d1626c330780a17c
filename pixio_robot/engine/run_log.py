"""The log of a run: one JSON object a line in `log.jsonl`, and the same numbers as TensorBoard and wandb curves."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from rich.console import Console

from pixio_robot.common.storage.json_lines import append_lines, keep_lines, read_lines
from pixio_robot.engine.curves import Board, Curves, WandbCurves, import_wandb


class RunLog:
    """Append measurements and phase times of a run to `log.jsonl`, and tell the person about phases."""

    def __init__(
        self, run_dir: Path, console: Console, *, writes: bool = True, wandb_project: str | None = None
    ) -> None:
        """Open the log of a run folder; lines of an earlier, interrupted process are kept.

        Args:
            run_dir: The run folder.
            console: Where phases are announced.
            writes: Whether this process is the one that writes.
            wandb_project: Project in which wandb gets the curves, too; None for none.

        Raises:
            UserError: wandb is wanted and not installed.
        """
        self.path = run_dir / "log.jsonl"
        self.console = console
        self.phase_seconds: dict[str, float] = {}
        self._writes, self._wandb_project = writes, wandb_project
        self._curves: list[Curves] = []
        if writes:
            run_dir.mkdir(parents=True, exist_ok=True)
        if wandb_project is not None:
            import_wandb()  # now, before anything slow

    def __enter__(self) -> Self:
        """Return the log; leaving the context closes its curves."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for curves in self._curves:
            curves.close()
        self._curves.clear()

    def write(self, phase: str, **values: Any) -> None:  # noqa: ANN401
        """Append one line of plain values (JSON); numbers of a `step` go to the open curves, too."""
        if not self._writes:
            return
        append_lines(self.path, [{"phase": phase, **values}])
        if "step" in values:
            numbers = {name: float(value) for name, value in values.items() if isinstance(value, float | int)}
            for curves in self._curves:
                curves.scalars([numbers])

    def write_steps(self, phase: str, lines: list[dict[str, float]]) -> None:
        """Append a line for each of some steps, at once."""
        if self._writes:
            append_lines(self.path, [{"phase": phase, **line} for line in lines])
            for curves in self._curves:
                curves.scalars(lines)

    def picture(self, name: str, picture_HWC: np.ndarray, step: int) -> None:
        """Show a uint8 RGB picture beside the curves."""
        for curves in self._curves:
            curves.picture(name, picture_HWC, step)

    def entries(self, phase: str) -> list[dict[str, Any]]:
        """Return the lines of a phase so far."""
        return [line for line in read_lines(self.path) if line.get("phase") == phase]

    def begin_curves(self, phase: str, step: int) -> None:
        """Open the curves of a phase after a step, which a resumed run has behind it, and drop what lies later."""
        if not self._writes:
            return
        if self.path.exists():
            keep_lines(
                self.path, lambda line: line.get("phase") != phase or line.get("step", line.get("at_step", 0)) <= step
            )
        self._curves.append(Board(self.path.parent / "tensorboard", step))
        if self._wandb_project is not None:
            self._curves.append(WandbCurves(self._wandb_project, self.path.parent))

    @contextmanager
    def phase(self, name: str, title: str) -> Iterator[None]:
        """Announce a phase, time it, and log its end."""
        self.console.rule(f"[bold]{title}", align="left", style="dim")
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self.phase_seconds[name] = seconds
        self.write(name, event="finished", seconds=round(seconds, 1))
