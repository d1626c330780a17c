"""Where a demonstration store is: a folder, a zip file of one, or a URL that fsspec opens."""

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore, ZipStore

from pixio_robot.common.errors import UserError

_MARKS = ("zarr.json", ".zgroup")  # of a zarr group

Location = Path | str
"""A path, or the text of a URL such as ``s3://bucket/demos.zarr`` or ``memory://demos.zarr``."""


def as_location(path: str | Path) -> Location:
    """Return a URL as it is, and anything else as a path."""
    return path if isinstance(path, str) and "://" in path else Path(path)


def open_zarr(location: Location, *, read_only: bool = True) -> Store:
    """Open what zarr reads from; only a folder can be written to.

    Raises:
        UserError: A zip file is cut off, or fsspec lacks the package for a URL or does not know it.
        OSError: A zip file cannot be read.
    """
    if isinstance(location, str):
        assert read_only
        with explains_url(location):
            return FsspecStore.from_url(location, read_only=True)
    if location.is_file():
        assert read_only
        with explains_zip(location):
            zipfile.ZipFile(location).close()  # says at once where the end of the file is missing
            return ZipStore(location, mode="r")
    return LocalStore(location, read_only=read_only)


def check_there(location: Location) -> None:
    """Check that a path leads anywhere.

    Raises:
        UserError: It does not.
    """
    if isinstance(location, Path) and not location.exists():
        shell = " (shells leave ~ as it is behind a =: write $HOME)" if location.parts[:1] == ("~",) else ""
        raise UserError(f"There is nothing at {location}{shell}: give the path of demonstrations.")


def place_in(location: Location, name: str) -> str:
    """Return where a store has a file or array: in a zip file perhaps below the folder that was zipped with its name."""
    return place_in_zip(location, name) if isinstance(location, Path) and location.is_file() else name


def place_in_zip(path: Path, name: str) -> str:
    """Return where a zip file has something of the zarr group in it, which may have been zipped with its folder.

    Raises:
        UserError: It is no whole zip file.
    """
    with explains_zip(path), zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
    folders = {member.partition("/")[0] for member in names if "/" in member} - {"__MACOSX", "."}
    marked = [
        folder for folder in ("", *sorted(folders)) if any(f"{folder}/{mark}".lstrip("/") in names for mark in _MARKS)
    ]
    return f"{marked[0]}/{name}".lstrip("/") if marked else name


def read_member(location: Location, name: str) -> bytes:
    """Read a whole file of a store.

    Raises:
        UserError: As `open_zarr`.
        OSError: There is no such file, or it cannot be read.
    """
    if isinstance(location, str):
        with explains_url(location):
            filesystem, folder = fsspec.url_to_fs(location)
            return filesystem.cat_file(f"{folder}/{name}")
    if location.is_file():
        with location.open("rb") as file:
            if file.read(2) != b"PK":  # no zip file, not even the start of one
                raise FileNotFoundError(name)
        place = place_in_zip(location, name)
        with explains_zip(location), zipfile.ZipFile(location) as archive:
            if place not in archive.namelist():
                raise FileNotFoundError(name)
            return archive.read(place)
    return (location / name).read_bytes()


def size_of(location: Location) -> int:
    """Return the bytes that a store takes."""
    if isinstance(location, str):
        filesystem, folder = fsspec.url_to_fs(location)
        return int(filesystem.du(folder))
    if location.is_file():
        return location.stat().st_size
    return sum(file.stat().st_size for file in location.rglob("*") if file.is_file())


@contextlib.contextmanager
def explains_zip(path: Path) -> Iterator[None]:
    """Turn what zipfile says of a file that is no zip file, not all of one, or locked, into a `UserError`."""
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        raise UserError(
            f"{path} is a zip file that cannot be read ({error}): unpack it, and give what is in it."
        ) from error
    except zipfile.BadZipFile as error:
        raise UserError(
            f"{path} is not a whole zip file ({error}): copy it anew from where it came from, or give a .zarr folder."
        ) from error


@contextlib.contextmanager
def explains_url(url: str) -> Iterator[None]:
    """Turn what fsspec says of a URL that it does not know, or lacks a package for, into a `UserError`."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:  # fsspec names the package: "Install s3fs to access S3"
        raise UserError(f"{url} needs a package that is not installed ({error}): pip install it.") from error
    except ValueError as error:
        raise UserError(f"{url} cannot be opened ({error}): give a URL that fsspec knows, or a path.") from error
