"""Requests to stop: a run asked by Ctrl-C or by its scheduler ends its step and saves a checkpoint first."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

# Ctrl-C; what schedulers send before they kill; what they send ahead of that (Slurm's --signal).
REQUESTS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
# A terminal and torchrun may both pass on one and the same request; what comes later is another one.
_SAME_REQUEST_SECONDS = 2.0


class StoppedError(KeyboardInterrupt):
    """The run was asked to stop, and has.

    Attributes:
        request: One of `REQUESTS`.
    """

    def __init__(self, request: signal.Signals) -> None:
        super().__init__(f"stopped by {request.name}")
        self.request = request


class StopRequest:
    """While open, notes a request to stop.

    A second request has the effect that it would have had without this. A signal that was ignored stays so, and outside
    the main thread, where Python takes no signals, nothing is noted.

    Attributes:
        signal: What was asked, or None.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._noted = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        """Begin to note."""
        if threading.current_thread() is threading.main_thread():
            for number in REQUESTS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Handle signals as before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self._noted = signal.Signals(number), time.monotonic()
        elif time.monotonic() - self._noted > _SAME_REQUEST_SECONDS:
            self.__exit__()
            signal.raise_signal(number)


@contextmanager
def requests_raise() -> Iterator[None]:
    """Let requests of a scheduler raise `StoppedError` where they come outside of a step, as Ctrl-C raises there.

    Without it SIGTERM and SIGUSR1 end the process with nothing said and worker processes left behind. After the
    context, which says how to go on, the process ends by the signal that it was sent.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise StoppedError(signal.Signals(number))

    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in set(REQUESTS) - {signal.SIGINT}:
            if signal.getsignal(number) == signal.SIG_DFL:
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
        if stopped is not None and stopped != signal.SIGINT:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()  # the signal ends the process at once
            signal.raise_signal(stopped)
