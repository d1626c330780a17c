"""What goes over the wire: msgpack maps in binary websocket messages.

| message | from | entries |
|---|---|---|
| `hello` | client | `protocol`, `schema`: versions that it speaks and reads |
| `welcome` | server | `metadata`: the artifact's |
| `predict` | client | `id`, `chunk`, `seed` (numbers), `observation` (arrays by key, as `History.stacked` gives them) |
| `actions` | server | `id`, `actions`: an array float32 (H, A) |
| `error` | server | `id`, `reason`: this request was refused; the connection stays |
| `refused` | server | `reason`: the connection ends |

An array is a map of `dtype` (`uint8`, `float32` or `int64`), `shape`, and `data`, its bytes in C order. `GET /health` answers 200
with a JSON object; the websocket is at `/policy`. A token is sent as `Authorization: Bearer <token>`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from pixio_robot.common.errors import UserError

PROTOCOL_VERSION = 2
POLICY_PATH, HEALTH_PATH = "/policy", "/health"
LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost")
MAX_MESSAGE_BYTES = 1 << 20
"""What a client takes: metadata, or the actions of a chunk."""

_LARGEST_FRAME = 1920 * 1080 * 3
# A message holds arrays by a few keys. Nested or many-membered ones would take seconds for nothing.
_MOST_ENTRIES, _MOST_ENTRIES_IN_ONE = 1 << 16, 1 << 12

_DTYPES = {"uint8": np.dtype(np.uint8), "float32": np.dtype("<f4"), "int64": np.dtype("<i8")}
_ENTRIES: dict[str, dict[str, type]] = {
    "hello": {"protocol": int, "schema": int},
    "welcome": {"metadata": dict},
    "predict": {"id": int, "chunk": int, "seed": int, "observation": dict},
    "actions": {"id": int, "actions": np.ndarray},
    "error": {"id": int, "reason": str},
    "refused": {"reason": str},
}


class MalformedMessageError(ValueError):
    """Bytes that are no message; says why."""


def encode(kind: str, **entries: Any) -> bytes:  # noqa: ANN401
    """Return a message as bytes."""
    assert entries.keys() == _ENTRIES[kind].keys()
    packed = msgpack.packb({"type": kind, **entries}, default=_pack_array)
    assert packed is not None
    return packed


def decode(received: object, *expected: str) -> dict[str, Any]:
    """Return the entries of a message, with its `type`.

    Args:
        received: What came.
        *expected: Types of messages that may come now.

    Raises:
        MalformedMessageError: It is not bytes, not msgpack, not one of these messages, or an entry is missing, too many
            or of another type.
    """
    if not isinstance(received, bytes):
        raise MalformedMessageError("text instead of bytes")
    message = unpack(received, _unpack_array)
    kind = message.get("type") if isinstance(message, dict) else None
    if kind not in expected or not isinstance(message, dict):
        raise MalformedMessageError(f"no message of type {' or '.join(expected)}")
    found = {name: type(value) for name, value in message.items() if name != "type"}
    if found != _ENTRIES[kind]:
        described = ", ".join(f"{name} {type_.__name__}" for name, type_ in _ENTRIES[kind].items())
        raise MalformedMessageError(f"a {kind} whose entries are not {described}")
    return message


def unpack(received: bytes, unpack_map: Callable[[dict[Any, Any]], object]) -> object:
    """Return what msgpack says, of bounded depth and size.

    Args:
        received: What came.
        unpack_map: Makes what it stands for of each map.

    Raises:
        MalformedMessageError: It is not msgpack, or has more in it than any message.
    """
    entries = 0

    def counted[C: (dict, list)](container: C) -> C:
        nonlocal entries
        entries += 1 + len(container)
        if entries > _MOST_ENTRIES:
            raise ValueError(f"more than {_MOST_ENTRIES} entries")
        return container

    try:
        return msgpack.unpackb(
            received,
            object_hook=lambda map_: unpack_map(counted(map_)),
            list_hook=counted,
            max_map_len=_MOST_ENTRIES_IN_ONE,
            max_array_len=_MOST_ENTRIES_IN_ONE,
            max_ext_len=0,
        )
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        what = f"{type(error).__name__}: {str(error)[:80]}"
        raise MalformedMessageError(f"{len(received)} bytes that cannot be read ({what})") from error


def most_request_bytes(metadata: Mapping[str, Any]) -> int:
    """Return how large a request for an artifact may be: frames of its cameras, up to 1920×1080 px where they may vary."""
    frames = [
        camera["height"] * camera["width"] * 3
        if camera["frame_sizes"] == "exact"
        else max(camera["height"] * camera["width"] * 3, _LARGEST_FRAME)
        for camera in metadata["cameras"]
    ]
    state = 8 * metadata["state"]["size"] if metadata["state"] is not None else 0
    return metadata["observation_horizon"] * (sum(frames) + state) + _MOST_ENTRIES


def _pack_array(value: object) -> dict[str, Any]:
    if not isinstance(value, np.ndarray) or value.dtype.name not in _DTYPES:
        raise TypeError(f"{type(value).__name__} cannot be sent")
    data = np.asarray(value, dtype=_DTYPES[value.dtype.name]).tobytes()
    return {"dtype": value.dtype.name, "shape": list(value.shape), "data": data}


def _unpack_array(entries: dict[Any, Any]) -> object:
    if entries.keys() != {"dtype", "shape", "data"}:
        return entries
    dtype, shape, data = _DTYPES[entries["dtype"]], entries["shape"], entries["data"]
    if not isinstance(data, bytes) or not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError("an array whose data are no bytes, or whose shape has other numbers than 0, 1, 2, …")
    return np.frombuffer(bytearray(data), dtype).reshape(shape)  # writable, as torch wants its arrays


def read_token(path: str | None) -> str | None:
    """Return the token in a file; None where no file is named.

    Raises:
        UserError: The file cannot be read, is empty, or holds what no header can.
    """
    if path is None:
        return None
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read the token in {path}: {error}.") from error
    if token and not (token.isascii() and token.isprintable()):
        raise UserError(
            f"The token in {path} is no line of plain letters and digits: write one with 'openssl rand -hex 32'."
        )
    if not token:
        raise UserError(f"{path} holds no token: write one into it, for example with 'openssl rand -hex 32'.")
    return token
