"""What is said of steps: their losses, read from the device now and then, and how fast they come."""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pixio_robot.engine.processes import Processes
from pixio_robot.engine.run_log import RunLog

_RECENT = 50  # lines of the log whose mean the bar shows


@dataclass(frozen=True)
class Step:
    """What is known of a step before the device is asked."""

    number: int
    loss: Tensor
    norm: Tensor
    rate: float
    names: list[str]


@dataclass
class StepLog:
    """Steps whose losses the device still has, and the log that gets them.

    Attributes:
        phase: Name of the training in the log.
        unit: What samples are called.
        batch_size: Samples of a step, of all processes.
        log_every: Steps of which a line of the log is the mean.
        log_seconds: Losses are read from the device no more often than this.
        peak_per_second: Samples a second at the device's full rate; None does not compare with it.
        norms_are_finite: Whether a gradient norm that is no number is a fault; with a scaled loss it is not.
        processes: Who takes part.
        log: Receives the lines.
        on_log: Called with the finished steps and the latest mean loss.
        on_nonsense: Called with the first step whose loss or gradient norm is no number, and what it is; it does not return.
    """

    phase: str
    unit: str
    batch_size: int
    log_every: int
    log_seconds: float
    peak_per_second: float | None
    norms_are_finite: bool
    processes: Processes
    log: RunLog
    on_log: Callable[[int, float], None]
    on_nonsense: Callable[[Step, str], None]

    def __post_init__(self) -> None:
        """Begin with no step."""
        self._pending: list[Step] = []
        self._skipped: list[tuple[int, Sequence[str]]] = []
        self.begin()

    @property
    def newest(self) -> Step | None:
        """The last step that was not written yet."""
        return self._pending[-1] if self._pending else None

    def begin(self) -> None:
        """Start the clock."""
        self._read = self._rated = time.monotonic()
        self._waited = 0.0

    def leave_out(self, seconds: float) -> None:
        """Count a time in which nothing was trained to no step."""
        self._rated += seconds

    def note(self, step: Step, skipped: Sequence[str], waited: float) -> None:
        """Take a step, the samples that were skipped for it, and the seconds that its batch was waited for."""
        self._pending.append(step)
        self._waited += waited
        if skipped:
            self._skipped.append((step.number, skipped))

    def is_due(self, done: int) -> bool:
        """Whether it is time to read losses."""
        return done % self.log_every == 0 and time.monotonic() - self._read >= self.log_seconds

    def flush(self, done: int, *, everything: bool) -> str | None:
        """Read the pending losses and log them, a line for `log_every` steps; return what the bar says.

        Args:
            done: Finished steps.
            everything: Whether also fewer steps than that make a line, because none will follow.
        """
        for skipped in self.processes.gather(self._skipped):
            for step, names in skipped:
                self.log.write(self.phase, event="skipped", at_step=step, samples=list(names))
        self._skipped.clear()
        read = torch.stack([torch.stack((step.loss, step.norm.to(step.loss))) for step in self._pending]).tolist()
        for step, (loss, norm) in zip(self._pending, read, strict=True):
            if not math.isfinite(loss) or (self.norms_are_finite and not math.isfinite(norm)):
                self.on_nonsense(step, f"The {'gradient' if math.isfinite(loss) else 'loss'} stopped being a number")
        self._read = now = time.monotonic()
        whole_lines = done if everything else done - done % self.log_every
        count = sum(step.number <= whole_lines for step in self._pending)
        if not count:
            return None
        seconds, waited, self._rated, self._waited = max(now - self._rated, 1e-9), self._waited, now, 0.0
        rate = self.batch_size * count / seconds
        speed = self._speed(rate, waited / seconds)
        pairs, lines = zip(self._pending[:count], read, strict=False), []
        for _, group in itertools.groupby(pairs, key=lambda pair: (pair[0].number - 1) // self.log_every):
            steps, values = zip(*group, strict=True)
            loss, norm = (sum(numbers) / len(steps) for numbers in zip(*values, strict=True))
            line = {"step": steps[-1].number, "loss": loss, "lr": steps[-1].rate, "gradient_norm": norm}
            lines.append(line | speed)
        self.log.write_steps(self.phase, lines)
        self._pending = self._pending[count:]
        recent = sum(line["loss"] for line in lines[-_RECENT:]) / len(lines[-_RECENT:])
        self.on_log(done, recent)
        return f"loss {recent:.4f}  {rate:.0f} {self.unit}/s"

    def _speed(self, rate: float, waited: float) -> dict[str, float]:
        """Return samples a second, the share of time spent waiting for them, and how well the device is used."""
        speed = {f"{self.unit}_per_second": round(rate, 1), "data_wait": round(waited, 3)}
        if self.processes.device.type == "cuda":
            speed["memory_gib"] = round(torch.cuda.max_memory_allocated(self.processes.device) / 2**30, 2)
        if self.peak_per_second is not None:
            speed["mfu"] = round(rate / self.processes.count / self.peak_per_second, 4)
        return speed
