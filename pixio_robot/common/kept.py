"""Folders that are kept for later runs, with a checksum of every file in them: what a disk or a copy has changed is noticed.

crc32c, since a check at every opening shall cost little beside reading the files: it finds damage, not forgers.
"""

import errno
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import google_crc32c

from pixio_robot.common.errors import printable
from pixio_robot.common.files import atomic_path, write_json

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
    wrong = damage(place) if place.exists() else None
    if place.exists() and wrong is None:
        return place
    if wrong is not None:
        log.warning("%s is made again: %s", place, wrong)
        shutil.rmtree(place)
    try:
        with atomic_path(place) as unfinished:
            unfinished.mkdir()
            make(unfinished)
            seal(unfinished)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or damage(place) is not None:
            raise  # else another run was faster with the same
    return place


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
