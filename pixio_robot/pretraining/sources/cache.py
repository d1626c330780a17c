"""Images to pretrain on, decoded once into one memory-mapped uint8 file.

A folder of images, tar shards or the camera frames of a DemoStore become an `ImageCache`: squares of equal side, so
that a training step reads rows instead of decoding files. Images that are not square are squashed and remember
their aspect ratio, so that crops keep the geometry of the original.
"""

import hashlib
import json
import logging
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import batched
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.data import Dataset

from pixio_robot.common.errors import UserError, nearest_name, printable
from pixio_robot.common.storage.kept import kept_folder
from pixio_robot.demos.store.store import DemoStore
from pixio_robot.images.decoding import SUFFIXES, decode
from pixio_robot.pretraining.sources.folders import find_images
from pixio_robot.pretraining.sources.grouped import Item
from pixio_robot.pretraining.sources.shards import find_shards, is_local, read_shard

log = logging.getLogger(__name__)

DECODED_TOGETHER = 256  # bounds the number of decoded images in flight
Frame = tuple[np.ndarray, float]  # uint8 (side, side, 3) and width / height before squashing


class ImageCache(Dataset[Tensor]):
    """Decoded frames, uint8 (side, side, 3) each, read from a memory-mapped file.

    Attributes:
        aspect_N: Width / height of every image before it was squashed to a square.
        side: Pixels along each side.
        fingerprint: Changes when the images it was made from change.
        skipped: Names of the files that could not be decoded.
    """

    def __init__(self, folder: Path) -> None:
        """Open a cache that `folder_images`, `shard_images` or `demo_images` wrote."""
        record = json.loads((folder / "cache.json").read_text())
        self.aspect_N = torch.from_numpy(np.load(folder / "aspect.npy"))
        self._names_N = np.load(folder / "names.npy", mmap_mode="r")
        self.side: int = record["side"]
        self.fingerprint: str = record["fingerprint"]
        self.skipped: list[str] = record["skipped"]
        shape = (len(self.aspect_N), self.side, self.side, 3)
        self._pixels = np.memmap(folder / "pixels.uint8", dtype=np.uint8, mode="r", shape=shape)

    def __len__(self) -> int:
        """Count the images."""
        return len(self.aspect_N)

    def __getitem__(self, index: int) -> Tensor:
        """Return one image, uint8 (side, side, 3)."""
        return self.read([index])[0]

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self)

    def names(self, indices: Sequence[int]) -> list[str]:
        """Return where images came from: a path below the folder, or camera and time step."""
        return [os.fsdecode(name) for name in self._names_N[np.asarray(indices)]]

    def read(self, indices: Sequence[int]) -> Tensor:
        """Return several images at once, uint8 (B, side, side, 3)."""
        return torch.from_numpy(self._pixels[np.asarray(indices)])


def folder_images(path: Path, cache_dir: Path, side: int) -> ImageCache:
    """Decode all images under a folder, or reuse the cache of an earlier call.

    Args:
        path: Searched recursively, see `find_images`.
        cache_dir: Where decoded images are kept, `side`² · 3 bytes each.
        side: Pixels along each side of a decoded image.

    Raises:
        UserError: The folder is missing or holds no readable image, or the disk is too full.
    """
    files = find_images(path)
    listing = "".join(
        f"{file.relative_to(path)} {stat.st_size} {stat.st_mtime_ns}\n"
        for file, stat in ((file, file.stat()) for file in files)
    )

    def decoded() -> Iterator[tuple[str, Frame | None]]:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for some in batched(files, DECODED_TOGETHER):
                frames = pool.map(lambda file: _decode(file, side), some)
                yield from zip((str(file.relative_to(path)) for file in some), frames, strict=True)

    return _cached(cache_dir, f"true colours folder {side}\n{listing}", side, len(files), decoded)


def shard_images(path: str | Sequence[str], cache_dir: Path, side: int) -> ImageCache:
    """Decode all images of tar shards on disk, or reuse the cache of an earlier call.

    Args:
        path: See `find_shards`; not a URL.
        cache_dir: Where decoded images are kept, `side`² · 3 bytes each.
        side: Pixels along each side of a decoded image.

    Raises:
        UserError: There are no shards or no readable image, a shard is not on disk, or the disk is too full.
    """
    urls = find_shards(path)
    for url in urls:
        if not is_local(url):
            raise UserError(f"Only shards on disk can be decoded once, not {url}: leave images.decode_once out.")
    files = [Path(url) for url in urls]
    listing = "".join(f"{file.name} {stat.st_size} {stat.st_mtime_ns}\n" for file in files for stat in [file.stat()])

    def decoded() -> Iterator[tuple[str, Frame | None]]:
        items = (item._replace(name=f"{Path(url).name}/{item.name}") for url in urls for item in read_shard(url))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for some in batched(items, DECODED_TOGETHER):
                frames = pool.map(lambda item: _decode_item(item, side), some)
                yield from zip((item.name for item in some), frames, strict=True)

    count = sum(_images_in(file) for file in files)
    if not count:
        raise UserError(f"{path} holds no images: check images.path.")
    return _cached(cache_dir, f"true colours shards {side}\n{listing}", side, count, decoded)


def demo_images(path: Path, cache_dir: Path, side: int, image_keys: Sequence[str] | None = None) -> ImageCache:
    """Copy the camera frames of a DemoStore, or reuse the cache of an earlier call.

    Args:
        path: The `.zarr` folder of the store.
        cache_dir: Where frames are kept, `side`² · 3 bytes each.
        side: Pixels along each side; frames of another size are resized.
        image_keys: Cameras to use, as `observation.images.<camera>`; all by default.

    Raises:
        UserError: The store or a camera does not exist, the store is empty, or the disk is too full.
    """
    store = DemoStore.open(path)
    keys = list(image_keys or store.image_keys)
    for key in keys:
        if key not in store.image_keys:
            raise UserError(f"{path} has no camera {key!r}. {nearest_name(key, store.image_keys)}")
    if not keys or not store.num_steps:
        raise UserError(f"{path} holds no camera frames: record demonstrations with cameras first.")

    def decoded() -> Iterator[tuple[str, Frame | None]]:
        for key in keys:
            for start in range(0, store.num_steps, 256):
                stop = min(start + 256, store.num_steps)
                for step, frame in enumerate(store.read(key, start, stop), start):
                    yield f"{key} {step}", _squash(Image.fromarray(frame), side)

    recipe = f"named demos {side} {' '.join(keys)} {store.fingerprint()}"
    return _cached(cache_dir, recipe, side, len(keys) * store.num_steps, decoded)


def _squash(image: Image.Image, side: int) -> Frame:
    aspect = image.width / image.height
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(image), aspect


def _decode(file: Path, side: int) -> Frame | None:
    return _squash_or_skip(str(file), decode(file), side)


def _decode_item(item: Item, side: int) -> Frame | None:
    image = decode(item.content) if isinstance(item.content, bytes) else item.content
    assert not isinstance(image, np.ndarray)  # a shard holds files
    return _squash_or_skip(item.name, image, side)


def _squash_or_skip(name: str, image: Image.Image | Exception, side: int) -> Frame | None:
    if isinstance(image, Exception):
        log.warning("skipped %s: %s", printable(name), printable(str(image)))
        return None
    return _squash(image, side)


def _images_in(shard: Path) -> int:
    """Count the images of a shard, those before the place where it is cut off."""
    count = 0
    try:
        with tarfile.open(shard) as archive:
            for member in archive:
                count += member.name.lower().endswith(SUFFIXES)
    except (tarfile.TarError, EOFError, OSError, zlib.error):
        pass  # reading the shard names it and says what is wrong
    return count


def _cached(
    cache_dir: Path,
    recipe: str,
    side: int,
    count: int,
    decoded: Callable[[], Iterator[tuple[str, Frame | None]]],
) -> ImageCache:
    """Open the cache of this recipe, after writing it when it does not exist; a cache exists whole or not at all."""
    fingerprint = hashlib.sha256(os.fsencode(recipe)).hexdigest()[:16]
    folder = cache_dir / fingerprint

    def decode_all(unfinished: Path) -> None:
        needed, free = count * side * side * 3, shutil.disk_usage(cache_dir).free
        if needed > free:
            raise UserError(
                f"Decoding {count} images at {side} px needs {needed / 1e9:.1f} GB in {cache_dir}, "
                f"{free / 1e9:.1f} GB are free: free some space, choose another cache_dir, or lower images.side."
            )
        skipped = _write_frames(unfinished, decoded(), count)
        record = {"side": side, "fingerprint": fingerprint, "skipped": skipped}
        (unfinished / "cache.json").write_text(json.dumps(record, indent=1))

    cache = ImageCache(kept_folder(folder, decode_all))
    if cache.skipped:
        log.warning("%d of %d images could not be decoded and are left out", len(cache.skipped), count)
    return cache


def _write_frames(folder: Path, frames: Iterator[tuple[str, Frame | None]], count: int) -> list[str]:
    """Write pixels, names and aspect ratios; return the names of what could not be decoded."""
    aspects: list[float] = []
    names: list[bytes] = []
    skipped: list[str] = []
    columns = (TextColumn("decoding images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (folder / "pixels.uint8").open("wb") as pixels, Progress(*columns) as progress:
        task = progress.add_task("", total=count)
        for name, frame in frames:
            if frame is None:
                skipped.append(name)
            else:
                pixels.write(np.ascontiguousarray(frame[0]))
                aspects.append(frame[1])
                names.append(os.fsencode(name))
            progress.advance(task)
    if not aspects:
        raise UserError(
            f"None of the {count} images could be decoded (first: {printable(skipped[0])}): check the files."
        )
    np.save(folder / "aspect.npy", np.asarray(aspects, dtype=np.float32))
    np.save(folder / "names.npy", np.asarray(names))  # of fixed width, so that it can be mapped
    return skipped
