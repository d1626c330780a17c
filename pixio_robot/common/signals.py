"""Signals that ask a process to end, as exceptions: what is open is closed on the way out."""

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

SCHEDULERS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What schedulers send before they kill, and ahead of that (Slurm's --signal)."""
EVERY_END = (*SCHEDULERS, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP, signal.SIGXCPU, signal.SIGALRM)
"""Those, what a terminal sends (Ctrl-C, its own end, Ctrl-\\\\, Ctrl-Z), and limits of time."""
# After these a process says that it was stopped; after the others it ends by the signal, as its parent expects.
_SAID = (signal.SIGINT, signal.SIGTSTP)


class StoppedError(KeyboardInterrupt):
    """The run was asked to stop, and has.

    Attributes:
        request: The signal.
    """

    def __init__(self, request: signal.Signals) -> None:
        super().__init__(f"stopped by {request.name}")
        self.request = request


@contextmanager
def requests_raise(requests: Sequence[signal.Signals] = SCHEDULERS, once: bool = False) -> Iterator[None]:
    """Let requests to end raise `StoppedError` where they come, as Ctrl-C raises.

    Without it SIGTERM ends the process with nothing said and worker processes left behind. After the context, which says
    how to go on, the process ends by the signal that it was sent. A signal that was ignored stays so.

    Args:
        requests: The signals.
        once: Let the first alone raise, so that nothing interrupts the way out; those after it are ignored.
    """
    raised = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal raised
        if not (raised and once):
            raised = True
            raise StoppedError(signal.Signals(number))

    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in requests:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, stop)
    stopped: signal.Signals | None = None
    try:
        yield
    except StoppedError as error:
        stopped = error.request
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if stopped is not None and stopped not in _SAID:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError):  # a terminal that is gone
                    stream.flush()  # the signal ends the process at once
            signal.raise_signal(stopped)
