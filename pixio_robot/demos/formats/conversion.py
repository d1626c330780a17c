"""Converts demonstrations from one format to another, having seen what the source is."""

import json
import tarfile
import zipfile
from pathlib import Path

from rich.console import Console

from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.demos.formats.store import export_store
from pixio_robot.demos.store.codecs import LOSSLESS
from pixio_robot.demos.store.locations import Location, as_location, check_there, explains_zip, place_in_zip, size_of
from pixio_robot.demos.store.store import DemoStore

_STORE, _LEROBOT, _ROBOMIMIC, _REPLAY_BUFFER = "store", "lerobot", "robomimic", "replay_buffer"
_OPTIONS_TO = {_STORE: ("image_size", "codec"), _LEROBOT: ("use_videos",)}
_OPTIONS_FROM = {_ROBOMIMIC: ("fps",), _REPLAY_BUFFER: ("fps",)}
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_HDF5_SUFFIXES = {".hdf5", ".h5"}


def convert(
    source: str | Path,
    destination: str | Path,
    *,
    format: str | None = None,
    fps: int | None = None,
    use_videos: bool | None = None,
    image_size: int | None = None,
    codec: str | None = None,
    console: Console | None = None,
) -> None:
    """Convert a demonstration store to another format, or another format to a demonstration store.

    Other formats are a LeRobotDataset v3 (a folder), a robomimic file (HDF5) and a replay buffer of diffusion policy
    or UMI (zarr v2, a folder or ``.zarr.zip``). A store also becomes a store: one in a zip file for sharing, one at a URL,
    or one of another codec or size of frames.

    Args:
        source: What it is decides the direction. A store may be a folder, a zip file of one or a URL.
        destination: What to make. From a store: a robomimic file where the name ends in ``.hdf5``, a replay buffer
            where it ends in ``.zarr.zip``, a store in a zip file where it ends in ``.demos.zip``, a store where it is a
            URL, else a LeRobotDataset.
        format: What to make of a store, ``store``, ``lerobot``, ``robomimic`` or ``replay_buffer``; None goes by the name.
        fps: Control rate in Hz of a robomimic file or replay buffer that does not say it.
        use_videos: For a LeRobotDataset: see `pixio_robot.demos.formats.lerobot.export_lerobot`; None is True.
        image_size: For a demonstration store: height and width to resize frames to, in pixels; None keeps theirs.
        codec: For a demonstration store: how frames are kept, see `DemoStore.create`; None is lossless.
        console: Where to show progress, and what was made: standard error by default.

    Raises:
        UserError: The source is none of these, is damaged or lacks something; an option has no effect on it; there is
            something at `destination`; or the disk is full. Then nothing is left at `destination`.
    """
    source, destination = as_location(source), as_location(destination)
    found = _STORE if isinstance(source, str) else _format_of(source)
    made = (format or _format_by_name(destination)) if found == _STORE else _STORE
    options = {"fps": fps, "use_videos": use_videos, "image_size": image_size, "codec": codec}
    if found != _STORE and format != _STORE:
        options["format"] = format
    for name, value in options.items():
        if value is not None and name not in _OPTIONS_TO.get(made, ()) and name not in _OPTIONS_FROM.get(found, ()):
            raise UserError(
                f"{name}={value} has no effect where {source}, a {found.replace('_', ' ')}, becomes a "
                f"{made.replace('_', ' ')}: leave it out."
            )
    if found == _STORE:
        store = DemoStore.open(source)
        if made == _STORE:
            export_store(store, destination, codec=codec or LOSSLESS, image_size=image_size, console=console)
        else:
            _export(store, _path(destination, made), made, use_videos, console)
    else:
        assert isinstance(source, Path)
        store = _import(found, source, _path(destination, _STORE), fps, image_size, codec or LOSSLESS, console)
    said = f"{destination}: {store.num_episodes:,} episodes, {store.num_steps:,} steps, {size_of(destination) / 1e6:,.1f} MB"
    (console or Console(stderr=True)).print(said, highlight=False, markup=False, soft_wrap=True)


def _format_of(source: Path) -> str:
    if source.is_dir():
        if (source / "meta" / "info.json").exists():
            return _LEROBOT
        if (source / "zarr.json").exists():
            return _zarr_kind((source / "zarr.json").read_bytes())
        if (source / ".zgroup").exists() or (source / "meta" / "episode_ends").exists():
            return _REPLAY_BUFFER
        if (source / "meta").exists():
            return _LEROBOT
    elif source.is_file():
        with source.open("rb") as file:
            start = file.read(len(_HDF5_MAGIC))
        if start == _HDF5_MAGIC or source.suffix in _HDF5_SUFFIXES:
            return _ROBOMIMIC
        if zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                names = archive.namelist()
                mark = place_in_zip(source, "zarr.json")
                if mark in names:
                    with explains_zip(source):
                        return _zarr_kind(archive.read(mark))
                if place_in_zip(source, ".zgroup") in names:
                    return _REPLAY_BUFFER
            raise UserError(
                f"{source} is a zip file of neither a demonstration store (zarr.json) nor a replay buffer (.zgroup): it holds "
                f"{', '.join(sorted({name.partition('/')[0] for name in names})[:8]) or 'nothing'}; unpack it, and give what is "
                "in it."
            )
        if source.suffix == ".zip":  # cut off: its reader says so
            return _REPLAY_BUFFER
        if tarfile.is_tarfile(source):
            raise UserError(f"{source} is a tar file: unpack it, and give what is in it.")
    check_there(source)
    raise UserError(
        f"{source} is neither a demonstration store (a folder with a zarr.json), a LeRobotDataset (a folder with "
        "meta/info.json), a robomimic file (HDF5) nor a replay buffer (a zarr v2 folder or .zarr.zip): give the path of "
        "one."
    )


def _zarr_kind(metadata: bytes) -> str:
    """Tell a store from a replay buffer of zarr v3 by the group's metadata; damaged ones are for the store to name."""
    try:
        attributes = json.loads(metadata).get("attributes") or {}
    except (ValueError, AttributeError):
        return _STORE
    return _REPLAY_BUFFER if "schema" not in attributes else _STORE


def _path(location: Location, made: str) -> Path:
    if isinstance(location, str):
        raise UserError(
            f"{location} is a URL, which only a store becomes another store at, not a {made.replace('_', ' ')} made of "
            "something else: give a path, and convert what is there to the URL."
        )
    return location


def _format_by_name(destination: Location) -> str:
    if isinstance(destination, str) or destination.name.endswith(".demos.zip"):
        return _STORE
    if destination.suffix in _HDF5_SUFFIXES:
        return _ROBOMIMIC
    if destination.name.endswith(".zarr.zip"):
        return _REPLAY_BUFFER
    if destination.suffix == ".zarr":
        raise UserError(
            f"{destination} is named like a demonstration store, which the source is already: add format=store for a "
            "copy (with codec=jpeg for a smaller one), format=replay_buffer for the zarr of diffusion policy, or choose "
            "another name."
        )
    return _LEROBOT


def _export(store: DemoStore, destination: Path, made: str, use_videos: bool | None, console: Console | None) -> None:
    # Each format's library is needed for that format alone.
    if made == _LEROBOT:
        from pixio_robot.demos.formats.lerobot import export_lerobot

        export_lerobot(
            store, destination, f"local/{destination.name}", use_videos=use_videos is not False, console=console
        )
    elif made == _ROBOMIMIC:
        from pixio_robot.demos.formats.robomimic_export import export_robomimic

        export_robomimic(store, destination, console=console)
    elif made == _REPLAY_BUFFER:
        from pixio_robot.demos.formats.replay_buffer import export_replay_buffer

        export_replay_buffer(store, destination, console=console)
    else:
        raise UserError(
            f"Unknown format {made!r}. {nearest_name(made, [_STORE, _LEROBOT, _ROBOMIMIC, _REPLAY_BUFFER])}"
        )


def _import(
    found: str,
    source: Path,
    destination: Path,
    fps: int | None,
    image_size: int | None,
    codec: str,
    console: Console | None,
) -> DemoStore:
    if _is_named_otherwise(destination):
        raise UserError(
            f"{source} becomes a demonstration store, a folder whose name ends in .zarr, but {destination} is named like "
            "another format: convert to a store first, and that to the other format."
        )
    if found == _LEROBOT:
        from pixio_robot.demos.formats.lerobot import import_lerobot

        return import_lerobot(source, destination, image_size=image_size, codec=codec, console=console)
    elif found == _ROBOMIMIC:
        from pixio_robot.demos.formats.robomimic import import_robomimic

        return import_robomimic(source, destination, fps=fps, image_size=image_size, codec=codec, console=console)
    from pixio_robot.demos.formats.replay_buffer import import_replay_buffer

    return import_replay_buffer(source, destination, fps=fps, image_size=image_size, codec=codec, console=console)


def _is_named_otherwise(destination: Path) -> bool:
    return destination.suffix in _HDF5_SUFFIXES | {".zip"}
