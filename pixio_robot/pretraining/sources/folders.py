"""Finds the image files of a folder, in folders that are linked into it, too."""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pixio_robot.common.errors import UserError
from pixio_robot.images.decoding import SUFFIXES

log = logging.getLogger(__name__)

_MOST_KINDS = 6


def find_images(path: Path) -> list[Path]:
    """List the image files below a folder, sorted; what is hidden (`.name`) is left out, and what else is left out is said.

    Links to files and folders are followed, but for those that lead back to where they are.

    Raises:
        UserError: The folder is missing, cannot be read, or holds no images.
    """
    if not path.is_dir():
        raise UserError(f"There is no folder {path}: give a folder of images with images.path=…")
    images: list[Path] = []
    others: Counter[str] = Counter()
    for file in _files(path, frozenset()):
        if file.suffix.lower() in SUFFIXES and file.is_file():
            images.append(file)
        else:
            others[
                "broken links" if not file.exists() else f"*{file.suffix.lower()}" if file.suffix else "no suffix"
            ] += 1
    said = [f"{count} {kind}" for kind, count in others.most_common(_MOST_KINDS)]
    said += ["others"] * (len(others) > _MOST_KINDS)
    if not images:
        found = f", only {', '.join(said)}" if said else ""
        raise UserError(
            f"{path} holds no images ({', '.join(SUFFIXES)}){found}: give another folder with images.path=…"
        )
    if said:
        log.warning("%s: left out, since they are no images: %s", path, ", ".join(said))
    return sorted(images)


def _files(folder: Path, above: frozenset[str]) -> Iterator[Path]:
    here = os.path.realpath(folder)
    if here in above:  # a link to where it is
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(
            f"The folder {folder} cannot be read ({error.strerror}): see to its permissions, or move it."
        ) from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _files(Path(entry.path), above | {here})
        else:
            yield Path(entry.path)
