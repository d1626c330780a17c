"""Runs Python programs as commands, in forks of one process that has the large libraries loaded.

A command that only says what is wrong with its arguments spends all but a second on importing torch and LeRobot.
"""

import faulthandler
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path
from typing import Self

from pixio_robot.common.workers import start_server

ROOT = Path(__file__).parents[2]
PRELOADED = [
    *("torch", "timm", "lerobot.policies", "lerobot.envs.configs", "hydra", "zarr", "matplotlib.pyplot", "pydantic"),
    *("pixio_robot.encoders", "pixio_robot.environments", "lerobot_env_pixio", "lerobot_policy_pixio"),
    *("pixio_robot.training.job", "pixio_robot.pretraining.job", "pixio_robot.deployment.export.exporter"),
    *("pixio_robot.evaluation.rollouts.evaluate", "pixio_robot.demos.collection.collection"),
]
_NO_VARIABLES: Mapping[str, str] = {}


class Program:
    """A Python program that runs in a fork, in a session of its own.

    Args:
        command: What would follow `python`: a file, `-m` with a module, or `-c` with code; and arguments.
        cwd: Folder to run in.
        environment: Variables that differ from this process's.
    """

    def __init__(self, command: tuple[str, ...], cwd: Path, environment: Mapping[str, str] = _NO_VARIABLES) -> None:
        self._command = command
        self._folder = tempfile.TemporaryDirectory()
        arguments = (command, cwd, Path(self._folder.name), environment)
        self._process = start_server(PRELOADED).Process(target=_run_as_main, args=arguments)

    def __enter__(self) -> Self:
        """Start it."""
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it and what it has started, if a test ends before it does."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.join()
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        """Its number, which is that of its process group too."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.is_alive()

    @property
    def output(self) -> str:
        """What it has printed, errors last."""
        return "".join(self._streams())

    def ended(self, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
        """Wait for its end; return exit code and what was printed."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, f"still running after {timeout} s:\n{self.output}"
        return subprocess.CompletedProcess(self._command, self._process.exitcode, *self._streams())

    def _streams(self) -> list[str]:
        """What it has printed on each; it may be killed before it has them."""
        files = (Path(self._folder.name) / stream for stream in ("stdout", "stderr"))
        return [file.read_text() if file.exists() else "" for file in files]


def run_script(
    name: str, *arguments: str, cwd: Path, environment: Mapping[str, str] = _NO_VARIABLES
) -> subprocess.CompletedProcess[str]:
    """Run `python scripts/NAME ARGUMENTS` in a folder, to its end."""
    return run_python(str(ROOT / "scripts" / name), *arguments, cwd=cwd, environment=environment)


def run_python(
    *command: str, cwd: Path, environment: Mapping[str, str] = _NO_VARIABLES
) -> subprocess.CompletedProcess[str]:
    """Run `python COMMAND` in a folder, to its end; see `Program`."""
    with Program(command, cwd, environment) as program:
        return program.ended()


def run_two_processes(*command: str, cwd: Path) -> list[subprocess.CompletedProcess[str]]:
    """Run `python COMMAND` twice at once, as the two processes that torchrun would start; by gloo."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}
    shared |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), "2")
    environments = [shared | dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank)) for rank in range(2)]
    with Program(command, cwd, environments[0]) as first, Program(command, cwd, environments[1]) as second:
        return [program.ended() for program in (first, second)]


def _run_as_main(command: tuple[str, ...], cwd: Path, output: Path, environment: Mapping[str, str]) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as from a terminal, wherever the tests were started
    faulthandler.enable()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        opened = os.open(output / stream.name.strip("<>"), os.O_WRONLY | os.O_CREAT)
        os.dup2(opened, stream.fileno())
    os.chdir(cwd)
    os.environ.update(environment)
    # Workers of the program are forked from the server that this process is a fork of, whose address it knows.
    forkserver.ensure_running = forkserver._forkserver.ensure_running = lambda: None
    kind, *rest = command
    sys.path[:0] = [str(cwd) if kind.startswith("-") else str(Path(kind).parent)]
    sys.path[1:1] = environment.get("PYTHONPATH", "").split(os.pathsep)
    if kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = [kind, *rest[1:]]
        (output / "code.py").write_text(rest[0])
        runpy.run_path(str(output / "code.py"), run_name="__main__")
    else:
        sys.argv = list(command)
        runpy.run_path(kind, run_name="__main__")
