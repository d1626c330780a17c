"""Copies a demonstration store: to another codec, into a zip file for sharing, or to a URL."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.demos.formats.transfer import Episode, Record, check_not_empty, new_result, pack, write_store
from pixio_robot.demos.store.codecs import LOSSLESS
from pixio_robot.demos.store.layout import Feature
from pixio_robot.demos.store.locations import Location, explains_url
from pixio_robot.demos.store.store import DemoStore
from pixio_robot.images.preprocessing import fit_episode

_LAST = "zarr.json"


def export_store(
    store: DemoStore,
    destination: Location,
    *,
    codec: str = LOSSLESS,
    image_size: int | None = None,
    console: Console | None = None,
) -> None:
    """Write a store anew: its finished episodes, each bit for bit unless the codec or the size of frames changes them.

    Args:
        store: What to copy.
        destination: A folder; a zip file, where the name ends in ``.zip``; or a URL that fsspec writes to. The latter two
            are made from a folder on disk that is deleted afterwards, and are read-only.
        codec: How frames are kept, see `DemoStore.create`.
        image_size: Height and width to resize frames to, in pixels; None keeps theirs.
        console: Where to show progress: standard error by default.

    Raises:
        UserError: There is something at `destination`, the store is empty or damaged, the codec or the URL needs a
            package that is not installed, or the disk is full. Then nothing is left there that opens.
    """
    check_not_empty(store)
    if isinstance(destination, str):
        _upload(store, destination, codec, image_size, console)
    elif destination.suffix != ".zip":
        _copy(store, destination, codec, image_size, console)
    else:
        with (
            new_result(destination) as unfinished,
            tempfile.TemporaryDirectory(prefix=f"{unfinished.name}.", dir=unfinished.parent) as temporary,
        ):
            folder = Path(temporary) / "demos.zarr"
            _copy(store, folder, codec, image_size, console)
            pack(folder, unfinished)


def _copy(store: DemoStore, folder: Path, codec: str, image_size: int | None, console: Console | None) -> None:
    attributes = Record.of_store(store).attributes | {"fps": store.fps}
    features = {
        key: Feature((image_size, image_size, feature.shape[-1]), "uint8")
        if image_size and feature.is_image
        else feature
        for key, feature in store.features.items()
    }
    write_store(folder, features, attributes, episodes_of(store, image_size), store.num_episodes, codec, console)


def episodes_of(store: DemoStore, image_size: int | None = None) -> Iterator[Episode]:
    """Yield the episodes of a store, with frames of another size where one is given."""
    record = Record.of_store(store)
    for index, task in enumerate(store.episode_tasks):
        data = store.episode(index)
        for key in store.image_keys:
            data[key] = fit_episode(data[key], image_size)
        yield Episode(data, record.seeds[index], record.success[index], task)


def _upload(store: DemoStore, url: str, codec: str, image_size: int | None, console: Console | None) -> None:
    with explains_url(url):
        filesystem, target = fsspec.url_to_fs(url)
        if filesystem.exists(f"{target}/{_LAST}"):
            raise UserError(f"Cannot write {url}: it exists; choose another URL or delete it.")
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "demos.zarr"
            _copy(store, folder, codec, image_size, console)
            files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
            # The group's own file last: without it there is no store, however much is there already.
            for file in sorted(files, key=lambda file: file == _LAST):
                filesystem.makedirs(f"{target}/{file}".rpartition("/")[0], exist_ok=True)
                filesystem.put_file(str(folder / file), f"{target}/{file}")
