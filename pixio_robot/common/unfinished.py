"""Results that are complete or not there, whatever kills the process that makes them."""

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from pixio_robot.common.errors import UserError


@contextlib.contextmanager
def finished_at(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; what is there in the end is moved to `path`, or removed on failure.

    A process that is killed leaves its unfinished file or folder under a hidden name; the next one that makes the same
    removes it.

    Raises:
        UserError: There is something at `path`.
    """
    if path.exists():
        raise UserError(f"Cannot write {path}: it exists; choose another path or delete it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    visible = f"{path.name.lstrip('.')}.{socket.gethostname()}."
    for left in path.parent.glob(".*"):
        # Any number of dots: what is made of parts leaves unfinished parts beside its own unfinished whole.
        name = left.name.lstrip(".")
        process = name.removeprefix(visible).partition(".")[0]
        if name.startswith(visible) and process.isdigit() and not _is_alive(int(process)):
            _remove(left)
    unfinished = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        _remove(unfinished)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    if process == os.getpid():  # of an earlier process with this number: this one is only about to begin
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
