"""One thread that makes calls in turn, and keeps no process alive when one of them never returns."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from typing import Any


class Worker(Executor):
    """An executor of one daemon thread; the interpreter waits for those of `ThreadPoolExecutor` even if they hang."""

    def __init__(
        self, name: str, patience: Callable[[], float | None] = lambda: None, idle: Callable[[], None] = lambda: None
    ) -> None:
        """Start the thread.

        Args:
            name: Of the thread.
            patience: Says, before every wait for a call, after how many seconds without one `idle` is called; None: never.
            idle: Called in the thread; must not raise.
        """
        self._calls: queue.SimpleQueue[tuple[Future, Callable[[], Any]] | None] = queue.SimpleQueue()
        self._patience, self._idle = patience, idle
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit[**P, R](self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Return the future of a call."""
        future: Future[R] = Future()
        self._calls.put((future, lambda: fn(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the thread end after the calls so far, or, with `cancel_futures`, after the present one."""
        while cancel_futures:
            try:
                waiting = self._calls.get_nowait()
            except queue.Empty:
                break
            if waiting is not None:
                waiting[0].cancel()
        self._calls.put(None)

    def _run(self) -> None:
        while True:
            try:
                waiting = self._calls.get(timeout=self._patience())
            except queue.Empty:
                self._idle()
                continue
            if waiting is None:
                return
            future, call = waiting
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # whatever it is, it belongs to who waits
                future.set_exception(error)
            del waiting, future, call  # what it returned may be large


def is_done(future: Future, seconds: float | None) -> bool:
    """Wait for a call, at most some seconds; signals are handled meanwhile."""
    return bool(wait([future], seconds).done)
