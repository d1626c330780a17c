"""Reads single frames out of the shards of a demonstration store, with as little between file and frame as can be.

A chunk of a shard is one frame. zarr takes some 0.3 ms to find and decode one; here it takes what decoding takes. The
format is that of zarr v3 (https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/): behind the chunks
stands an index with the offset and the length of each, uint64, and its CRC-32C.
"""

import contextlib
import io
import os
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import google_crc32c
import numpy as np
import zarr

from pixio_robot.demos.store.codecs import Decoder, decoder_of
from pixio_robot.demos.store.locations import place_in_zip

_ABSENT = 2**64 - 1
_CHECKSUM_BYTES = 4


class FrameReader:
    """The frames of one camera in a folder or in a zip file, decoded one by one in the calling thread.

    Keeps nothing but the shards' indices (16 bytes a frame), and looks each time whether the file is still the one
    that the index is of, since another process may append.
    """

    def __init__(self, location: Path, name: str, array: zarr.Array, decode: Decoder) -> None:
        assert array.shards is not None
        self._location = location
        self._name = name
        self._shape = array.shape[1:]
        self._frames_per_file = array.shards[0]
        self._decode = decode
        self._members = _stored_members(location) if location.is_file() else None
        self._indices: dict[int, tuple[object, np.ndarray]] = {}

    @classmethod
    def of(cls, location: object, name: str, array: zarr.Array) -> Self | None:
        """Return the reader of an array, or None where only zarr reads it."""
        codecs: Any = array.metadata.to_dict()["codecs"]
        if not isinstance(location, Path) or codecs[0]["name"] != "sharding_indexed":
            return None
        sharding = codecs[0]["configuration"]
        decode = decoder_of([codec["name"] for codec in sharding["codecs"]])
        is_known = (
            sharding["chunk_shape"][0] == 1
            and sharding["index_location"] == "end"
            and [codec["name"] for codec in sharding["index_codecs"]] == ["bytes", "crc32c"]
        )
        if decode is None or not is_known or array.dtype != np.uint8:
            return None
        reader = cls(location, name, array, decode)
        return None if reader._members == {} else reader

    def read(self, steps: np.ndarray, frames: np.ndarray) -> None:
        """Put frames in any order, with repeats, into an array, uint8 (steps, height, width, channels).

        Raises:
            OSError: A file is missing.
            ValueError: A file is cut off or altered.
        """
        numbers, places = np.divmod(steps, self._frames_per_file)
        for number in np.unique(numbers).tolist():
            rows = np.flatnonzero(numbers == number)
            self._read_from(number, places[rows], rows, frames)

    def _read_from(self, number: int, places: np.ndarray, rows: np.ndarray, frames: np.ndarray) -> None:
        with self._opened(number) as (file, start, size):
            chunks = self._index(number, file, start, size)[places]
            read: dict[int, int] = {}
            for place, row, (offset, length) in zip(places.tolist(), rows.tolist(), chunks.tolist()):
                if place in read:
                    frames[row] = frames[read[place]]
                    continue
                if offset == _ABSENT:
                    raise ValueError("a frame is missing")
                file.seek(start + offset)
                self._decode(file.read(length), frames[row])
                read[place] = row

    @contextlib.contextmanager
    def _opened(self, number: int) -> Iterator[tuple[io.FileIO, int, int]]:
        """Yield the file with a shard, and where in it the shard starts and how long it is."""
        member = f"{self._name}/c/{number}" + "/0" * len(self._shape)
        if self._members is None:
            with io.FileIO(self._location / member) as file:
                yield file, 0, file.seek(0, io.SEEK_END)
            return
        if member not in self._members:
            raise FileNotFoundError(f"{member} is missing")
        header, size = self._members[member]
        with io.FileIO(self._location) as file:
            file.seek(header)
            # The lengths of name and extra field, which stand before the data, of the member's own header.
            name_bytes, extra_bytes = struct.unpack("<26xHH", file.read(30))
            yield file, header + 30 + name_bytes + extra_bytes, size

    def _index(self, number: int, file: io.FileIO, start: int, size: int) -> np.ndarray:
        state = _state_of(file)
        if number not in self._indices or self._indices[number][0] != state:
            index_bytes = 16 * self._frames_per_file
            if size < index_bytes + _CHECKSUM_BYTES:
                raise ValueError("a file is cut off")
            file.seek(start + size - index_bytes - _CHECKSUM_BYTES)
            index, checksum = file.read(index_bytes), file.read(_CHECKSUM_BYTES)
            if google_crc32c.value(index) != struct.unpack("<I", checksum)[0]:
                raise ValueError("the checksum of a file's index does not match")
            self._indices[number] = state, np.frombuffer(index, "<u8").reshape(-1, 2)
        return self._indices[number][1]


def _state_of(file: io.FileIO) -> object:
    status = os.fstat(file.fileno())
    return status.st_ino, status.st_mtime_ns, status.st_size


def _stored_members(path: Path) -> dict[str, tuple[int, int]]:
    """Return where each file's header stands in a zip file, and the file's size; nothing if they are compressed."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        return {}
    folder = place_in_zip(path, "")
    return {member.filename.removeprefix(folder): (member.header_offset, member.file_size) for member in members}
