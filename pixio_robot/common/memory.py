"""Peak memory of a job with all its worker processes."""

import contextlib
import threading
from types import TracebackType
from typing import Self

import psutil


class PeakMemory:
    """Samples the memory of this process and its children while the context is open.

    Shared pages count once where the system can tell (proportional set size, Linux); elsewhere the resident sizes
    are added up.
    """

    def __init__(self, interval_seconds: float = 2.0) -> None:
        """Prepare to sample every so many seconds."""
        self.peak_bytes = 0
        self._interval = interval_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        own = psutil.Process()
        while True:
            total = 0
            for process in [own, *own.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):  # a worker may end between listing and reading
                    memory = process.memory_full_info()
                    total += getattr(memory, "pss", memory.rss)
            self.peak_bytes = max(self.peak_bytes, total)
            if self._stop.wait(self._interval):
                return
