"""The progress display of every long phase."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib.util import find_spec

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


# Where there is no terminal (nohup, tee, Slurm, CI), seconds until the first line, and the most between two.
_FIRST_LINE, _MOST_BETWEEN = 30.0, 600.0


@contextmanager
def phase_progress(console: Console, first_line: float = _FIRST_LINE) -> Iterator[Progress]:
    """Show a bar with count, rate, elapsed time, time left and a note (`fields["note"]`).

    Where there is no terminal, nor a notebook that can draw one (with ipywidgets), a line now and then says the same, ever more
    rarely.

    Args:
        console: Where.
        first_line: Seconds until the first such line.
    """
    in_bare_notebook = console.is_jupyter and find_spec("ipywidgets") is None
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=in_bare_notebook,
    ) as progress:
        if console.quiet or ((console.is_terminal or console.is_jupyter) and not in_bare_notebook):
            yield progress
            return
        ended = threading.Event()
        lines = threading.Thread(target=_say_now_and_then, args=(progress, ended, first_line), daemon=True)
        lines.start()
        try:
            yield progress
        finally:
            ended.set()
            lines.join()


def _say_now_and_then(progress: Progress, ended: threading.Event, pause: float) -> None:
    while not ended.wait(pause):
        for task in progress.tasks:
            if not task.finished:
                progress.console.print(_line(task), highlight=False, soft_wrap=True, markup=False)
        pause = min(1.5 * pause, _MOST_BETWEEN)


def _line(task: Task) -> str:
    total = "" if task.total is None else f"/{task.total:.0f}"
    parts = [f"{task.description} {task.completed:.0f}{total}"]
    parts += [f"{task.speed:.3g}/s"] if task.speed else []
    parts += [f"{timedelta(seconds=round(task.elapsed))} so far"] if task.elapsed is not None else []
    parts += [f"{timedelta(seconds=round(task.time_remaining))} left"] if task.time_remaining is not None else []
    return ", ".join([*parts, *filter(None, [str(task.fields.get("note", ""))])])


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
