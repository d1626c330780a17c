"""The progress display of rollouts."""

from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class RolloutProgress:
    """One bar with the number of episodes, the running success, and the time left.

    Args:
        total: Number of episodes.
    """

    def __init__(self, total: int) -> None:
        self._progress = Progress(
            TextColumn("rollouts"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._task = self._progress.add_task("loading the policy", total=total)
        self._n_done = self._n_successes = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def advance(self, success: bool) -> None:
        """Count one more finished episode."""
        self._n_done += 1
        self._n_successes += success
        share = 100 * self._n_successes / self._n_done
        self._progress.update(self._task, advance=1, description=f"success {share:.0f} %")
