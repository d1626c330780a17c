"""Reads pickles of strangers: numpy arrays and plain containers, and nothing else.

A pickle is a program. This reader gives it stand-ins for the few names that arrays need; none of numpy's own functions is
reached, since those can be talked into reading memory that is not theirs. Arrays are made afterwards, from checked parts.
"""

import functools
import io
import math
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pixio_robot.common.errors import UserError

_KINDS = re.compile(r"[biufcSU]\d{1,9}")  # numbers, truth values and text of fixed length: no objects, no records
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def read_plain_pickle(path: Path) -> Any:  # noqa: ANN401 (whatever containers there are)
    """Return what a pickle holds: dicts, lists, tuples, numbers, text and numpy arrays of numbers or text.

    The pickle may be one that `torch.save` wrapped; tensors are no arrays, and are refused.

    Raises:
        UserError: It holds anything else, which is not made, or is damaged or no pickle.
    """
    if not path.is_file():
        raise UserError(f"There is no expert file {path}.")
    try:
        with _opened(path) as file:
            return _made(_Reader(file).load(), {})
    except _ForbiddenError as error:
        raise UserError(
            f"{path} was not loaded: it asks for {error}, and an expert file holds numpy arrays and plain containers only; "
            f"get it from where it was published."
        ) from None
    except MemoryError:
        raise UserError(f"{path} does not fit this machine's memory.") from None
    except Exception as error:  # a damaged pickle fails in as many ways as there are instructions
        raise UserError(f"{path} is damaged or no pickle ({str(error) or type(error).__name__}).") from error


def _opened(path: Path) -> BinaryIO:
    """Open a pickle, or the one in a zip file that `torch.save` wrote."""
    if not zipfile.is_zipfile(path):
        return path.open("rb")
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if member.filename.rpartition("/")[2] == "data.pkl"]
        if len(members) != 1 or members[0].compress_type != zipfile.ZIP_STORED:
            raise ValueError("a zip file without the one data.pkl that torch.save writes")
        return io.BytesIO(archive.read(members[0]))


class _ForbiddenError(Exception):
    """Something that is neither an array nor a plain container; the message names it."""


class _Reader(pickle.Unpickler):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")  # text and bytes of Python 2
        # Of this file alone: what it does to them touches no other.
        self._stand_ins: dict[tuple[str, str], Any] = {
            ("numpy", "ndarray"): "ndarray",
            ("numpy", "dtype"): functools.partial(_Kind),
            ("numpy.core.multiarray", "_reconstruct"): functools.partial(_begin_array),
            ("numpy.core.multiarray", "scalar"): functools.partial(_scalar),
            ("numpy.core.numeric", "_frombuffer"): functools.partial(_array_from_buffer),
            ("_codecs", "encode"): functools.partial(_encode),
            ("collections", "OrderedDict"): functools.partial(dict),
            ("builtins", "bytes"): functools.partial(_bytes),
            ("builtins", "bytearray"): functools.partial(_bytes),
        }

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 (pickle's signature)
        module_then = module.replace("numpy._core", "numpy.core").replace("__builtin__", "builtins")
        stand_in = self._stand_ins.get((module_then, name))
        if stand_in is None:
            raise _ForbiddenError(f"{module}.{name}")
        return stand_in

    def persistent_load(self, pid: object) -> Any:  # noqa: ANN401 (as above)
        raise _ForbiddenError("data outside of it")


class _Kind:
    """In place of a numpy type."""

    __slots__ = ("dtype",)

    def __init__(self, text: str, *_: object) -> None:
        if not isinstance(text, str) or not _KINDS.fullmatch(text):
            raise _ForbiddenError(f"an array of {text!r}")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, *parts = state
        if any(part is not None for part in parts[:3]):
            raise _ForbiddenError("an array of records")
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """In place of an array, until all of it is known."""

    __slots__ = ("data", "fortran", "kind", "shape")

    def __init__(self, data: object = b"", kind: object = None, shape: object = (0,), fortran: object = False) -> None:
        self.data, self.kind, self.shape, self.fortran = data, kind, shape, fortran

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.kind, self.fortran, self.data = state

    def made(self) -> np.ndarray:
        if not isinstance(self.kind, _Kind):
            raise _ForbiddenError("an array without a type")
        data = self.data.encode("latin1") if isinstance(self.data, str) else self.data
        if not isinstance(data, bytes | bytearray) or not isinstance(self.shape, tuple):
            raise _ForbiddenError("an array of objects")
        if any(type(side) is not int or side < 0 for side in self.shape):
            raise ValueError(f"an array of shape {self.shape}")
        dtype = self.kind.dtype
        if len(data) != math.prod(self.shape) * dtype.itemsize:
            raise ValueError(f"{len(data)} bytes for an array of shape {self.shape} and type {dtype}")
        return np.frombuffer(data, dtype).reshape(self.shape, order="F" if self.fortran else "C")


def _begin_array(*_: object) -> _Array:
    return _Array()


def _array_from_buffer(data: object, kind: object, shape: object, order: object, *_: object) -> _Array:
    return _Array(data, kind, shape, order == "F")


def _scalar(kind: object, data: object = b"") -> _Array:
    return _Array(data, kind, ())


def _bytes(data: bytes = b"") -> bytes:
    if not isinstance(data, bytes):
        raise _ForbiddenError("bytes of a number")
    return data


def _encode(text: str, encoding: str = "") -> bytes:
    if encoding != "latin1":
        raise _ForbiddenError(f"text in {encoding!r}")
    return text.encode("latin1")


def _made(value: Any, known: dict[int, Any]) -> Any:  # noqa: ANN401 (as above)
    """Return a value with its arrays made; anything that is neither plain nor an array is refused.

    What stands in several places is made once: a small file cannot become large.
    """
    if type(value) in _PLAIN:
        return value
    if id(value) not in known:
        known[id(value)] = _made_anew(value, known)
    return known[id(value)]


def _made_anew(value: Any, known: dict[int, Any]) -> Any:  # noqa: ANN401 (as above)
    if isinstance(value, _Array):
        array = value.made()
        return array if array.ndim else array[()]
    if type(value) is dict:
        return {_made(key, known): _made(one, known) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_made(one, known) for one in value)
    raise _ForbiddenError(f"a {type(value).__name__}")
