"""Folders that are kept for later runs, with a checksum of every file in them: what a disk or a copy has changed is noticed.

crc32c, since a check at every opening shall cost little beside reading the files: it finds damage, not forgers.
"""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import google_crc32c
import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from pixio_robot.common.errors import printable
from pixio_robot.common.storage.files import atomic_path, prepare_folder, write_json

log = logging.getLogger(__name__)

CHECKSUMS = "checksums.json"
_BLOCK = 1 << 20


def kept_folder(place: Path, make: Callable[[Path], None]) -> Path:
    """Return a folder that an earlier run has made and that is as it was, or make it; a damaged one is made again, aloud.

    Args:
        place: The folder; its name follows from all that its content depends on.
        make: Writes the content into a folder, which exists.

    Raises:
        UserError: It cannot be written; see `atomic_path`.
    """
    if place.exists() and damage(place) is None:
        return place
    with only_one(place):
        wrong = damage(place) if place.exists() else None
        if place.exists() and wrong is None:
            return place
        if wrong is not None:
            log.warning("%s is made again: %s", place, wrong)
            shutil.rmtree(place)
        with atomic_path(place) as unfinished:
            unfinished.mkdir()
            make(unfinished)
            seal(unfinished)
    return place


@contextlib.contextmanager
def only_one(place: Path) -> Iterator[None]:
    """Let one run at a time make what lies at a place; another waits, aloud, and finds it made.

    Raises:
        UserError: The folder that it lies in cannot be written to.
    """
    prepare_folder(place)
    file = place.with_name(f".{place.name}.lock")
    lock = FileLock(file, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        log.warning("%s is being made by another run: waiting for it", place)
        lock.acquire(timeout=-1)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # whoever waits for it needs no file, and finds made what it is for
        lock.release()


def new_array(path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> np.memmap:
    """Return an array that is kept in a new .npy file, for which the disk has room: else writing would kill the process."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, max(path.stat().st_size, 1))
    return array


def seal(folder: Path, pattern: str = "*") -> None:
    """Write the checksums of a folder's files into `checksums.json` in it.

    Args:
        folder: Its files will not change any more.
        pattern: Which files, by their names.
    """
    write_json(folder / CHECKSUMS, checksums(folder, pattern))


def damage(folder: Path) -> str | None:
    """Say what is wrong with the files of a folder that was sealed; None where they are as they were."""
    try:
        sums = json.loads((folder / CHECKSUMS).read_text())
    except FileNotFoundError:
        return f"it has no {CHECKSUMS}"
    except (OSError, ValueError) as error:
        return f"its {CHECKSUMS} cannot be read ({printable(str(error))})"
    return first_damaged(folder, sums)


def checksums(folder: Path, pattern: str = "*") -> dict[str, str]:
    """Return the checksum of every file in a folder and those below, by its path in it."""
    files = sorted(path for path in folder.rglob(pattern) if path.is_file())
    return {path.relative_to(folder).as_posix(): _checksum(path) for path in files}


def first_damaged(folder: Path, sums: object) -> str | None:
    """Say which file of a folder is not there, or not as it was; None where all are.

    Args:
        folder: Of the files.
        sums: What `checksums` said of them.
    """
    if not isinstance(sums, dict) or not all(isinstance(text, str) for text in sums.values()):
        return "its checksums are none"
    for name, expected in sums.items():
        try:
            if _checksum(folder / name) != expected:
                return f"{printable(name)} is damaged"
        except FileNotFoundError:
            return f"{printable(name)} is missing"
        except OSError as error:
            return f"{printable(name)} cannot be read ({error.strerror})"
    return None


def _checksum(path: Path) -> str:
    checksum = google_crc32c.Checksum()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            checksum.update(block)
    return checksum.hexdigest().decode()
