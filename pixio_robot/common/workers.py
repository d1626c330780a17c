"""Processes that work through tasks, load what they need once, and may die without ending the run."""

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pixio_robot.common.errors import UserError, disk_refusal
from pixio_robot.common.storage.files import temporary_folder

# Seconds within which a worker has to be ready: loading the largest model from a slow disk takes minutes.
_SET_UP_LIMIT = 1800.0
_DUMP_LIMIT = 2.0  # seconds that a worker has for writing where it hangs
_SERVER_ENVIRONMENT = {
    # Libraries ask on import whether there is a GPU. Where torch answers by starting CUDA's driver, no process forked
    # from that one can ever use it: this is torch's own switch for counting without.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    # The allocator inside pyarrow starts a thread on import, and forks of a process with threads may hang.
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}


@dataclass(frozen=True)
class Outcome[Task, Result]:
    """What became of a task.

    Attributes:
        task: The task as it was submitted.
        result: What the worker made of it; None after a crash.
        crash: Why there is no result, in a line; None when there is one.
        details: More of it, for whoever has to find the cause: a traceback, or what the worker printed last.
    """

    task: Task
    result: Result | None = None
    crash: str | None = None
    details: str = ""


@dataclass(frozen=True)
class _Failure:
    """An exception on its way from a worker to the parent."""

    reason: str
    details: str
    is_user_error: bool


class WorkerPool[Task, Result]:
    """A fixed number of worker processes; one that dies is replaced.

    The processes are forked from a server that has imported the given modules once: importing LeRobot takes
    many seconds and hundreds of megabytes, which workers then share.

    Args:
        set_up: Importable function, called once in every worker with `arguments`; returns the function that
            turns a task into its result.
        arguments: Arguments of `set_up`; sent to the worker, as are tasks and results.
        workers: Number of processes.
        preload: Modules that the server imports, unless one runs already (see `start_server`).
    """

    def __init__(
        self,
        set_up: Callable[..., Callable[[Task], Result]],
        arguments: tuple[Any, ...],
        workers: int,
        preload: list[str],
    ) -> None:
        assert workers > 0
        self._set_up, self._arguments = set_up, arguments
        self._context = start_server(preload)
        self._logs = temporary_folder("pixio_workers")
        self._n_started = 0
        self._workers = [self._start_worker() for _ in range(workers)]

    def __enter__(self) -> Self:
        """Return the pool, whose workers are starting."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all workers, busy or not."""
        for worker in self._workers:
            worker.stop()
        self._logs.cleanup()

    @property
    def has_idle_worker(self) -> bool:
        """Whether a submitted task would be taken at once."""
        return any(worker.task is None for worker in self._workers)

    def submit(self, task: Task, time_limit: float | None = None) -> None:
        """Give a task to an idle worker (there must be one).

        Args:
            task: The task.
            time_limit: Seconds after which a worker that is still at it is killed, counted from when it could begin.
        """
        worker = next(worker for worker in self._workers if worker.task is None)
        worker.take(task, time_limit)
        # A worker that has just died is noticed in `wait`, with this task as its victim.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            worker.connection.send(task)

    def wait(self) -> list[Outcome[Task, Result]]:
        """Wait until at least one submitted task is over.

        Raises:
            UserError, RuntimeError: A worker could not be set up, or met a mistake of the user's or a full disk at its task; no
                other would fare better.
        """
        outcomes: list[Outcome[Task, Result]] = []
        while not outcomes:
            busy = [worker for worker in self._workers if worker.task is not None]
            assert busy, "nothing was submitted"
            ready = wait([worker.connection for worker in busy], max(0.0, min(worker.seconds_left for worker in busy)))
            for worker in busy:
                if worker.connection in ready:
                    outcomes += self._receive(worker)
                elif worker.seconds_left <= 0:
                    outcomes.append(self._give_up(worker))
        return outcomes

    def _receive(self, worker: "_Worker[Task]") -> list[Outcome[Task, Result]]:
        """Take in a message, or the death, of a busy worker."""
        task = worker.task
        assert task is not None
        try:
            message = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            cause, last_words = worker.bury()
            self._replace(worker)
            return [Outcome(task, crash=cause, details=last_words)]
        if isinstance(message, _SetUpFailed):
            raise _exception_of(message.failure)
        if isinstance(message, _Ready):
            worker.begin()
            return []
        worker.task = None
        if isinstance(message, _Failure):
            if message.is_user_error:  # another try would fare no better
                raise _exception_of(message)
            return [Outcome(task, crash=message.reason, details=message.details)]
        return [Outcome(task, result=message)]

    def _give_up(self, worker: "_Worker[Task]") -> Outcome[Task, Result]:
        """Kill a worker that is over its time, after it has written where it is."""
        worker.dump()
        if not worker.is_ready:
            raise RuntimeError(f"A worker was not ready to work within {_SET_UP_LIMIT:.0f} s.\n{worker.last_words()}")
        task, limit = worker.task, worker.time_limit
        assert task is not None and limit is not None
        worker.stop()
        self._replace(worker)
        return Outcome(task, crash=f"not over within {limit:g} s", details=worker.last_words())

    def _replace(self, worker: "_Worker[Task]") -> None:
        self._workers[self._workers.index(worker)] = self._start_worker()

    def _start_worker(self) -> "_Worker[Task]":
        self._n_started += 1
        log = Path(self._logs.name) / f"worker_{self._n_started}.log"
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, log, self._set_up, self._arguments), daemon=True)
        process.start()
        # The worker's end must be open in the worker alone, or its death would not close the pipe.
        theirs.close()
        return _Worker(process, ours, log)


def start_server(preload: list[str]) -> ForkServerContext:
    """Let the process from which workers are forked import modules from now on, in the background.

    A program has one such server: the first call decides what it imports, later ones find it running. A job
    that will want workers calls this first, and imports its own modules meanwhile.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*preload, "pixio_robot.common.preloaded"])
    with _environment(_SERVER_ENVIRONMENT):
        forkserver.ensure_running()
    return context


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Let what is started meanwhile find some environment variables."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@dataclass(frozen=True)
class _SetUpFailed:
    failure: _Failure


@dataclass(frozen=True)
class _Ready:
    """Sent once by a worker that is set up."""


class _Worker[Task]:
    """The parent's view of a worker: its process, its pipe, and the task it is busy with."""

    def __init__(self, process: BaseProcess, connection: Connection, log: Path) -> None:
        self.process, self.connection, self.log = process, connection, log
        self.task: Task | None = None
        self.time_limit: float | None = None
        self.is_ready = False
        self._since = time.monotonic()

    def take(self, task: Task, time_limit: float | None) -> None:
        """Note what the worker is given."""
        self.task, self.time_limit = task, time_limit
        if self.is_ready:
            self._since = time.monotonic()

    def begin(self) -> None:
        """Note that the worker is set up and turns to its task."""
        self.is_ready = True
        self._since = time.monotonic()

    @property
    def seconds_left(self) -> float:
        """Until the worker has to be set up, or done with its task."""
        limit = self.time_limit if self.is_ready else _SET_UP_LIMIT
        # Nobody waits longer than this without looking again.
        return 3600.0 if limit is None else self._since + limit - time.monotonic()

    def dump(self) -> None:
        """Have a hanging worker write the lines that its threads are at; it dies of it, if it still hears a signal."""
        assert self.process.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGABRT)  # faulthandler answers
        self.process.join(_DUMP_LIMIT)

    def stop(self) -> None:
        self.process.kill()  # whatever it does: a hanging process need not listen to anything milder
        self.process.join()
        self.connection.close()

    def bury(self) -> tuple[str, str]:
        """Return what a dead worker died of, and the end of what it printed."""
        self.process.join()
        self.connection.close()
        code = self.process.exitcode
        assert code is not None
        cause = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"worker {cause}", self.last_words()

    def last_words(self) -> str:
        """Return the end of what the worker printed, without faulthandler's list of what is loaded."""
        return self.log.read_text(encoding="utf-8", errors="replace").partition("\nExtension modules:")[0][-2000:]


def _serve(
    connection: Connection, log: Path, set_up: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]
) -> None:
    """Work in a worker process until the parent closes the pipe."""
    # Ctrl-C reaches the whole process group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _redirect_output(log)
        faulthandler.enable()
        import torch  # here, so that `start_server` does not have to wait for it

        torch.set_num_threads(1)
        act = set_up(*arguments)
    except Exception as error:  # whatever it is, the parent reports it
        connection.send(_SetUpFailed(_failure_of(error)))
        return
    connection.send(_Ready())
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            message = act(task)
        except Exception as error:  # whatever it is, the parent reports it
            message = _failure_of(error)
        connection.send(message)


def _redirect_output(log: Path) -> None:
    """Send all output of the process to a file: the terminal belongs to the parent's progress."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for number in (1, 2):
        os.dup2(descriptor, number)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 (lives as long as the process)
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def _failure_of(error: Exception) -> _Failure:
    full = disk_refusal(error) if not isinstance(error, UserError) else None
    reason = f"{type(error).__name__}: {full or error}"
    return _Failure(reason, traceback.format_exc(), full is not None or isinstance(error, UserError))


def _exception_of(failure: _Failure) -> Exception:
    if failure.is_user_error:
        return UserError(failure.reason.partition(": ")[2])
    return RuntimeError(f"A worker could not be set up.\n{failure.details}")
