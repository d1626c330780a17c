"""zarr arrays of a demonstration store: how they are cut into files, and how damage shows.

Crash safety rests on two behaviours of zarr: ``LocalStore`` writes each file (a chunk, a shard, a
``zarr.json``) to a temporary name and renames it, so a file is either the old one or the new one; and a write
into a partly filled shard carries over the shard's other chunks as they are.
"""

import contextlib
import math
import zipfile
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.core.array_spec import ArrayConfigParams
from zarr.errors import ChunkNotFoundError

from pixio_robot.common.errors import UserError
from pixio_robot.demos.store.codecs import COMPRESSORS, frame_codecs
from pixio_robot.demos.store.locations import Location, place_in

# zarr's synchronous pipeline reads a batch of frames four times faster than the default one. A pipeline that
# the user configured stays.
_PIPELINE = "codec_pipeline.path"
if zarr.config.get(_PIPELINE) == "zarr.core.codec_pipeline.BatchedCodecPipeline":
    zarr.config.set({_PIPELINE: "zarr.core.codec_pipeline.FusedCodecPipeline"})

# Chunks are written even where every value is 0, so that an absent file always means damage.
_CONFIG: ArrayConfigParams = {"write_empty_chunks": True, "read_missing_chunks": False}

# An append rewrites the shard that it lands in, and a read needs the shard's index (16 bytes a frame): that
# bounds its size. A shard is one file: that bounds their number.
_MAX_SHARD_BYTES = 16 * 2**20
_MAX_SHARD_FRAMES = 512
_ROWS_PER_CHUNK = 4096
# Of what others wrote, so that no small file costs much memory.
_MOST_CHUNK_BYTES, _MOST_ROWS_PER_FILE, _MOST_EPISODES = 1 << 28, 1 << 20, 1 << 24


def create_array(group: zarr.Group, name: str, row_shape: tuple[int, ...], dtype: str) -> None:
    """Create an array of no rows, with thousands of rows a chunk."""
    chunks = (_ROWS_PER_CHUNK, *row_shape)
    group.create_array(name, shape=(0, *row_shape), dtype=dtype, chunks=chunks, compressors=COMPRESSORS, fill_value=0)


def create_frame_array(group: zarr.Group, name: str, frame_shape: tuple[int, ...], codec: str) -> None:
    """Create an array of no frames, with a frame a chunk and hundreds of chunks a file.

    Raises:
        UserError: The codec is unknown or not installed.
    """
    frames_per_shard = max(1, min(_MAX_SHARD_FRAMES, _MAX_SHARD_BYTES // math.prod(frame_shape)))
    group.create_array(
        name,
        shape=(0, *frame_shape),
        dtype="uint8",
        chunks=(1, *frame_shape),
        shards=(frames_per_shard, *frame_shape),
        fill_value=0,
        **frame_codecs(codec, frame_shape[-1]),
    )


def open_array(source: Store, location: Location, name: str, mode: Literal["r", "r+"]) -> zarr.Array:
    """Open an array of a store at a location.

    Raises:
        UserError: It is missing or its metadata is damaged.
    """
    with explains_damage(location, name):
        array = zarr.open_array(source, path=place_in(location, name), mode=mode, config=_CONFIG)
        chunk_bytes, rows = math.prod(array.chunks) * array.dtype.itemsize, (array.shards or array.chunks)[0]
        if chunk_bytes > _MOST_CHUNK_BYTES or rows > _MOST_ROWS_PER_FILE:
            raise ValueError(f"it claims chunks of {chunk_bytes >> 20} MiB, {rows} rows a file")
        if len(array.shape) == 1 and array.shape[0] > _MOST_EPISODES:
            raise ValueError(f"it claims {array.shape[0]} episodes")
        return array


def append_rows(array: zarr.Array, start: int, rows: np.ndarray) -> None:
    """Make `rows` the last ones, from row `start` on; whatever was there is overwritten or cut off."""
    array.resize((start + len(rows), *array.shape[1:]))
    array[start:] = rows


def read_rows(location: Location, name: str, array: zarr.Array, rows: slice | np.ndarray) -> np.ndarray:
    """Read rows by slice, or by ascending row numbers.

    Raises:
        UserError: A chunk is missing, cut off or altered.
    """
    with explains_damage(location, name):
        return np.asarray(array.oindex[rows] if isinstance(rows, np.ndarray) else array[rows])


def read_growing(location: Location, name: str, array: zarr.Array) -> np.ndarray:
    """Read an array that grows row by row; the last row is 0 if it was made room for but not written.

    Raises:
        UserError: A chunk is missing, cut off or altered.
    """
    rows = np.zeros(array.shape, array.dtype)
    n_certain = max(0, array.shape[0] - 1)
    rows[:n_certain] = read_rows(location, name, array, slice(0, n_certain))
    with explains_damage(location, name), contextlib.suppress(ChunkNotFoundError):
        rows[n_certain:] = array[n_certain:]
    return rows


def check_files(array: zarr.Array, n_rows: int, read_row: Callable[[int], object]) -> None:
    """Read one row from each file that holds the first `n_rows` rows.

    That finds files that are missing or cut off: a shard's index, which has a checksum, stands at its end.

    Raises:
        UserError: There is such a file.
    """
    rows_per_file = (array.shards or array.chunks)[0]
    for row in range(0, n_rows, rows_per_file):
        read_row(row)


@contextlib.contextmanager
def explains_damage(location: Location, name: str) -> Iterator[None]:
    """Turn whatever says that an array cannot be read into a `UserError`."""
    try:
        yield
    # zarr and the codecs have no common base: a bad checksum is a ValueError, a chunk that does not
    # decompress a RuntimeError, damaged metadata a KeyError or TypeError, an absent array a
    # FileNotFoundError.
    except (ValueError, RuntimeError, KeyError, TypeError, OSError, zipfile.BadZipFile) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"The demonstration store {location} is damaged: {name} cannot be read ({reason}); "
            "restore it from a copy or record it again."
        ) from error
