"""Processes that run demonstrations, one environment each."""

import contextlib
import multiprocessing
import signal
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection, forkserver
from typing import Self

import torch

from pixio_robot.demos.recording import Demonstration, ExpertEnvConfig, record_demonstration
from pixio_robot.errors import UserError

_CONTEXT = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class _Failure:
    message: str
    details: str
    is_users: bool


def prepare_workers(modules: Sequence[str]) -> None:
    """Start the process that workers are forked from, which imports modules beside this one.

    Importing LeRobot's environments takes ten seconds of CPU time: this way it happens once, not in every worker, and a
    script that calls this first waits for it only once. It has an effect before the first worker of this process alone.

    Args:
        modules: What to import.
    """
    _CONTEXT.set_forkserver_preload(["__main__", __name__, *modules])
    with _blocked_interrupts():
        forkserver.ensure_running()


class DemonstrationWorkers:
    """A pool of processes, each with an environment of its own, that turn seeds into demonstrations.

    A process that dies or raises costs its seed one more try in a new process.

    Args:
        env_config: What to run. Workers unpickle it, which imports the module of its class.
        count: Number of processes.
    """

    def __init__(self, env_config: ExpertEnvConfig, count: int) -> None:
        prepare_workers([type(env_config).__module__])
        self._env_config = env_config
        self._idle = [_Worker(env_config) for _ in range(count)]
        self._busy: dict[connection.Connection, tuple[_Worker, int]] = {}
        self._failed_seeds: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop all processes at once."""
        workers = self._idle + [worker for worker, _ in self._busy.values()]
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()

    @property
    def has_idle(self) -> bool:
        """Whether a process waits for a seed."""
        return bool(self._idle)

    @property
    def num_busy(self) -> int:
        """Number of seeds in work."""
        return len(self._busy)

    def start(self, seed: int) -> None:
        """Give a seed to an idle process."""
        worker = self._idle.pop()
        with contextlib.suppress(BrokenPipeError):  # it died idle: `finished` notices
            worker.connection.send(seed)
        self._busy[worker.connection] = worker, seed

    def finished(self) -> list[Demonstration]:
        """Wait until something happened and return the demonstrations that are done, in no particular order.

        Raises:
            UserError: The environment refused with a sentence for the user, or a seed failed twice.
        """
        demonstrations = []
        for ready in connection.wait(list(self._busy)):
            assert isinstance(ready, connection.Connection)
            worker, seed = self._busy.pop(ready)
            result = worker.result()
            if isinstance(result, Demonstration):
                demonstrations.append(result)
                self._idle.append(worker)
                continue
            worker.terminate()
            worker.join()
            if result.is_users:
                raise UserError(result.message) from RuntimeError(result.details)
            if seed in self._failed_seeds:
                raise UserError(
                    f"Seed {seed} failed twice in the environment or its expert ({result.message}): look at the "
                    "environment with this seed, or start from another first seed."
                ) from RuntimeError(result.details)
            self._failed_seeds.add(seed)
            self._idle.append(_Worker(self._env_config))
            self.start(seed)
        return demonstrations


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, env_config: ExpertEnvConfig) -> None:
        self.connection, in_process = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(in_process, env_config), daemon=True)
        with _blocked_interrupts():
            self._process.start()
        in_process.close()

    def result(self) -> Demonstration | _Failure:
        try:
            return self.connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            return _Failure(f"its process ended with exit code {self._process.exitcode}", "", is_users=False)

    def terminate(self) -> None:
        self._process.terminate()

    def join(self) -> None:
        self._process.join()
        self.connection.close()


def _serve(requests: connection.Connection, env_config: ExpertEnvConfig) -> None:
    """Turn seeds into demonstrations until the other end of the pipe closes, as it does whenever the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent decides
    torch.set_num_threads(1)
    try:
        env = env_config.make_env()
        while True:
            seed = requests.recv()
            requests.send(record_demonstration(env, env_config.make_expert(seed), seed))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception as error:
        # An environment's ValueError carries a sentence for the user.
        message = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        requests.send(_Failure(message, traceback.format_exc(), is_users=isinstance(error, ValueError)))


@contextlib.contextmanager
def _blocked_interrupts() -> Iterator[None]:
    """Start processes that no Ctrl-C interrupts while they import; one meant for this process arrives afterwards."""
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
