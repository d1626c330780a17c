"""Settings for all tests, made before torch is imported anywhere."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# What tests share, and the modules of benchmarks: here and in worker processes, which inherit this path.
sys.path.extend([str(TESTS / "helpers"), str(TESTS.parent / "scripts" / "benchmarks")])

# Two test processes, each with subprocesses of its own, share two cores; more threads only get in each other's way.
os.environ["OMP_NUM_THREADS"] = "1"
# Tests run scripts in forks of a process that has imported LeRobot, which asks for GPUs; with this, torch answers without
# starting CUDA's driver, which could not be used in the forks then.
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest file first, so that the two processes end together."""
    items.sort(key=lambda item: item.path.name != "test_whole_way.py")


def pytest_collection_finish(session: pytest.Session) -> None:
    """In a run of several files, let whatever is forked come from one server that has imported what any of them needs.

    A process has one such server: without this, the first file that wants one decides what every later fork imports anew.
    """
    if len({item.path for item in session.items}) > 1:
        from forked_scripts import PRELOADED

        from pixio_robot.common.workers import start_server

        start_server(PRELOADED)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A test run in a shell's background inherits an ignored SIGINT; a terminal's programs do not."""
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, inherited)
