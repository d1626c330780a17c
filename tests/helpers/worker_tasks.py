"""What workers of a test are asked."""

import os
import time
from collections.abc import Callable
from pathlib import Path


def set_up() -> Callable[[str], str]:
    return lambda task: _threads_of_the_server() if task == "look" else _wait_for_ever()


def _threads_of_the_server() -> str:
    (line,) = [line for line in Path(f"/proc/{os.getppid()}/status").read_text().splitlines() if "Threads" in line]
    return line


def _wait_for_ever() -> str:
    time.sleep(3600)
    return ""
