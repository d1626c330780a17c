"""The one way to write a file or a folder: complete, or as before, whenever the process dies or the disk fills up."""

import contextlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pixio_robot.common.errors import UserError, full_disk


@contextlib.contextmanager
def atomic_path(path: Path, *, overwrite: bool = True, kept: str | None = None) -> Iterator[Path]:
    """Yield a path beside `path` to write a file or a folder to; it is moved to `path`, or removed on failure.

    A process that is killed leaves its part under a hidden name; the next one that writes to `path` removes it.

    Args:
        path: Where the result shall be; folders above it are made. A file replaces a file; a folder replaces nothing.
        overwrite: Whether there may be something at `path`.
        kept: What is kept when the disk is full, for the message.

    Raises:
        UserError: There is something at `path` that may not be overwritten, nothing may be written there, or the disk
            is full.
    """
    if not overwrite and path.exists():
        raise UserError(f"Cannot write {path}: it exists; choose another path or delete it.")
    kept = kept or ("the file is as it was" if path.exists() else "nothing was written there")
    unfinished = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")
    with explains_full_disk(path, kept):
        prepare_folder(path)
        try:
            yield unfinished
            os.replace(unfinished, path)
        finally:
            _remove(unfinished)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, see `atomic_path`."""
    with atomic_path(path) as unfinished:
        unfinished.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a file in UTF-8, see `atomic_path`."""
    write_bytes(path, content.encode(errors="backslashreplace"))  # what others wrote may have half a character


def write_json(path: Path, content: object) -> None:
    """Write JSON for people to read, see `atomic_path`."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def temporary_folder(name: str) -> tempfile.TemporaryDirectory[str]:
    """Return a folder for temporary files, to be cleaned up; what killed processes left under this name is removed first."""
    place = Path(tempfile.gettempdir())
    for left in place.glob(f".{name}.{socket.gethostname()}.*"):
        process = left.name.removeprefix(f".{name}.{socket.gethostname()}.").partition(".")[0]
        if process.isdigit() and int(process) != os.getpid() and not _is_alive(int(process)):
            _remove(left)
    return tempfile.TemporaryDirectory(prefix=f".{name}.{socket.gethostname()}.{os.getpid()}.", dir=place)


def is_file_inside(path: Path, folder: Path) -> bool:
    """Tell whether there is a file at a path that somebody else named, and neither it nor a link leads out of the folder."""
    return path.is_file() and path.resolve().is_relative_to(folder.resolve())


def check_links(folder: Path) -> None:
    """Check that no link in a folder leads out of it: what a stranger packed is only what is inside it.

    In a download of the Hugging Face hub, whose snapshots are links into the folder `blobs` beside them, that is inside.

    Raises:
        UserError: There is one.
    """
    root = folder.resolve()
    snapshot = next((parent for parent in (root, *root.parents) if parent.parent.name == "snapshots"), None)
    allowed = [root] if snapshot is None else [root, snapshot.parents[1] / "blobs"]
    waiting = [root]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    target = Path(entry.path).resolve()
                    if not any(target.is_relative_to(place) for place in allowed):
                        raise UserError(
                            f"{entry.path} is a link to {target}, outside {folder}, which is not followed: put what it shall "
                            f"be in its place."
                        )
                elif entry.is_dir():
                    waiting.append(Path(entry.path))


@contextlib.contextmanager
def explains_full_disk(path: Path, kept: str) -> Iterator[None]:
    """Turn the system's word for a full disk, a used-up quota or a file-size limit into a `UserError`.

    Of several around each other, the outermost knows what is kept in the end.
    """
    try:
        yield
    except Exception as error:
        reason = full_disk(error)
        if reason is None:
            raise
        raise UserError(
            f"The disk is full ({reason}) while writing {path}: {kept}; free some space and run again."
        ) from error


def prepare_folder(path: Path) -> None:
    """Make the folder above `path`, and remove from it what killed processes left of `path`.

    Raises:
        UserError: It cannot be made, or not be written to.
    """
    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_writable = os.access(folder, os.W_OK | os.X_OK)
    except (PermissionError, FileExistsError, NotADirectoryError):
        is_writable = False
    if not is_writable:
        raise UserError(f"Cannot write {path}: {folder} is no folder that may be written to; choose another path.")
    visible = f"{path.name.lstrip('.')}.{socket.gethostname()}."
    for left in folder.glob(".*"):
        # Any number of dots: what is made of parts leaves unfinished parts beside its own unfinished whole.
        name = left.name.lstrip(".")
        process = name.removeprefix(visible).partition(".")[0]
        if name.startswith(visible) and process.isdigit() and not _is_alive(int(process)):
            _remove(left)


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
