"""A progress bar with rate and time left."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.2f}/s" if speed else "–/s")


@contextlib.contextmanager
def progress_bar(description: str, total: int, console: Console) -> Iterator[Callable[[], None]]:
    """Show a bar while the context is open.

    Args:
        description: What is counted.
        total: How many there will be.
        console: Where to show it; where that is no terminal, only the end of the bar is printed.

    Yields:
        A function to call after each one.
    """
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=console,
    )
    with progress:
        task = progress.add_task(description, total=total)
        yield lambda: progress.advance(task)
