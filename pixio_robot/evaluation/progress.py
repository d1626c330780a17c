"""The progress display of rollouts."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class RolloutProgress:
    """One bar with the number of episodes, the running success, the rate and the time left.

    Args:
        total: Number of episodes.
        console: Where to show it; where that is no terminal, only the end of the bar is printed.
    """

    def __init__(self, total: int, console: Console | None) -> None:
        self._progress = Progress(
            TextColumn("rollouts"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task("loading the policy", total=total)
        self._n_done = self._n_successes = 0

    def __enter__(self) -> Self:
        """Show the bar."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bar as it is."""
        self._progress.stop()

    def advance(self, success: bool) -> None:
        """Count one more finished episode."""
        self._n_done += 1
        self._n_successes += success
        share = 100 * self._n_successes / self._n_done
        speed = self._progress.tasks[self._task].speed
        rate = f", {speed:.1f} episodes/s" if speed else ""
        self._progress.update(self._task, advance=1, description=f"success {share:.0f} %{rate}")
