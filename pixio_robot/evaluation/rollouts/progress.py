"""The progress display of rollouts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from pixio_robot.common.progress import phase_progress


@contextmanager
def rollout_progress(total: int, console: Console | None = None) -> Iterator[Callable[[bool], None]]:
    """Show one bar with the number of episodes, their rate, the running success, and the time left.

    Args:
        total: Number of episodes.
        console: Where to show it; standard output by default.

    Yields:
        A function to call with the success of each finished episode.
    """
    n_done = n_successes = 0
    with phase_progress(console or Console()) as progress:
        task = progress.add_task("rollouts", total=total, note="loading the policy")

        def advance(success: bool) -> None:
            nonlocal n_done, n_successes
            n_done += 1
            n_successes += success
            progress.update(task, advance=1, note=f"success {100 * n_successes / n_done:.0f} %")

        yield advance
