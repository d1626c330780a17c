"""The progress display of every long phase."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

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


class RateColumn(ProgressColumn):
    """Completed units per second."""

    def render(self, task: Task) -> Text:
        """Show the rate, or nothing before it is known."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.3g}/s" if speed else "", style="cyan")


@contextmanager
def phase_progress(console: Console) -> Iterator[Progress]:
    """Show a bar with count, rate, elapsed time, time left and a note (`fields["note"]`)."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    ) as progress:
        yield progress


@contextmanager
def progress_bar(description: str, total: int, console: Console) -> Iterator[Callable[[], None]]:
    """Show a bar for things that are counted one at a time.

    Args:
        description: What is counted.
        total: How many there will be.
        console: Where to show it; where that is no terminal, only the end of the bar is printed.

    Yields:
        A function to call after each one.
    """
    with phase_progress(console) as progress:
        task = progress.add_task(description, total=total, note="")
        yield lambda: progress.advance(task)
