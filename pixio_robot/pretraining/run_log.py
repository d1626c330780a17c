"""The log of a pretraining run: the loss of every step as JSON lines, and the bar on the terminal."""

import math
import time
from pathlib import Path
from typing import Any, Self

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor

from pixio_robot.common.json_lines import append_lines, keep_lines, read_lines
from pixio_robot.engine.board import Board


class LossIsNoNumberError(Exception):
    """The loss of a step is not finite; `images` are this process's images of the step."""

    def __init__(self, step: int, images: list[str]) -> None:
        super().__init__(f"The loss stopped being a number at step {step}")
        self.step = step
        self.images = images


class RunLog:
    """Collects losses as device tensors and reads them only when `flush` is called."""

    def __init__(self, file: Path, phase: str, writes: bool = True) -> None:
        """Log to `file`, if this process `writes`, and to `board`, where one is set; nothing before the first record."""
        self.file = file
        self.phase = phase
        self.writes = writes
        self.losses: list[float] = []
        self.board: Board | None = None
        self._pending: list[tuple[Tensor, float, list[str]]] = []
        self._flushed = time.monotonic()
        self._rate = 0.0

    @property
    def seconds_since_flush(self) -> float:
        """Seconds since losses were last read from the device."""
        return time.monotonic() - self._flushed

    def write(self, *records: dict[str, Any]) -> None:
        """Append one JSON object a line."""
        if self.writes:
            append_lines(self.file, [{"phase": self.phase, **record} for record in records])

    def rewind(self, step: int) -> None:
        """Take up the log of an interrupted run, without what it did after `step`."""
        if self.writes:
            keep_lines(self.file, lambda record: record.get("step", 0) <= step)
        records = [record for record in read_lines(self.file) if record.get("step", 0) <= step]
        self.losses = [record["loss"] for record in records if "loss" in record]

    def add(self, loss: Tensor, learning_rate: float, images: list[str]) -> None:
        """Note the loss of the next step, and the images it is of, without waiting for the device."""
        self._pending.append((loss, learning_rate, images))

    def flush(self, batch_size: int) -> float:
        """Read pending losses, log them, and return the images per second at which they came.

        Raises:
            LossIsNoNumberError: A loss is not a finite number.
        """
        if not self._pending:
            return self._rate
        values = torch.stack([loss for loss, _, _ in self._pending]).tolist()
        rate = self._rate = round(len(values) * batch_size / max(self.seconds_since_flush, 1e-9), 1)
        records = []
        for value, (_, learning_rate, images) in zip(values, self._pending, strict=True):
            step = len(self.losses) + 1
            if not math.isfinite(value):
                self.write(*records)
                raise LossIsNoNumberError(step, images)
            self.losses.append(value)
            records.append({"step": step, "loss": value, "lr": learning_rate, "images_per_second": rate})
        self.write(*records)
        if self.board:
            self.board.scalars(records)
        self._pending.clear()
        self._flushed = time.monotonic()
        return rate


class StepBar:
    """Progress bar with smoothed loss, images per second and time left."""

    def __init__(self, phase: str, done: int, total: int, shown: bool = True) -> None:
        """Prepare a bar of `total` steps, `done` of them behind us."""
        self._progress = Progress(
            TextColumn(phase),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}  {task.fields[rate]} images/s"),
            TimeRemainingColumn(elapsed_when_finished=True),
            disable=not shown,
        )
        self._task: TaskID = self._progress.add_task("", total=total, completed=done, loss="…", rate="…")

    def __enter__(self) -> Self:
        """Show the bar."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bar as it is."""
        self._progress.stop()

    def update(self, losses: list[float], rate: float) -> None:
        """Show the state after `len(losses)` steps."""
        recent = losses[-50:]
        mean = sum(recent) / max(1, len(recent))
        self._progress.update(self._task, completed=len(losses), loss=f"{mean:.4f}", rate=f"{rate:.0f}")
