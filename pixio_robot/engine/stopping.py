"""Requests to stop: a run asked by Ctrl-C or by its scheduler ends its step and saves a checkpoint first."""

import signal
import threading
import time
from types import FrameType
from typing import Any, Self

from pixio_robot.common.signals import SCHEDULERS

REQUESTS = (signal.SIGINT, *SCHEDULERS)
# A terminal and torchrun may both pass on one and the same request; what comes later is another one.
_SAME_REQUEST_SECONDS = 2.0


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
