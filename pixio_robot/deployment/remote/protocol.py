"""What goes over the wire: msgpack maps in binary websocket messages.

| message | from | entries |
|---|---|---|
| `hello` | client | `protocol`, `schema`: versions that it speaks and reads |
| `welcome` | server | `metadata`: the artifact's |
| `predict` | client | `id`, `chunk` (numbers), `observation` (arrays by key, as `History.stacked` gives them) |
| `actions` | server | `id`, `actions`: an array float32 (H, A) |
| `error` | server | `id`, `reason`: this request was refused; the connection stays |
| `refused` | server | `reason`: the connection ends |

An array is a map of `dtype` (`uint8` or `float32`), `shape`, and `data`, its bytes in C order. `GET /health` answers 200
with a JSON object; the websocket is at `/policy`. A token is sent as `Authorization: Bearer <token>`.
"""

from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from pixio_robot.common.errors import UserError

PROTOCOL_VERSION = 1
POLICY_PATH, HEALTH_PATH = "/policy", "/health"
LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost")
MAX_MESSAGE_BYTES = 1 << 26
"""Some twenty frames of 1280×720 px."""

_DTYPES = {"uint8": np.dtype(np.uint8), "float32": np.dtype("<f4")}
_ENTRIES: dict[str, dict[str, type]] = {
    "hello": {"protocol": int, "schema": int},
    "welcome": {"metadata": dict},
    "predict": {"id": int, "chunk": int, "observation": dict},
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
    try:
        message = msgpack.unpackb(received, object_hook=_unpack_array)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        what = f"{type(error).__name__}: {str(error)[:80]}"
        raise MalformedMessageError(f"{len(received)} bytes that cannot be read ({what})") from error
    kind = message.get("type") if isinstance(message, dict) else None
    if kind not in expected:
        raise MalformedMessageError(f"no message of type {' or '.join(expected)}")
    found = {name: type(value) for name, value in message.items() if name != "type"}
    if found != _ENTRIES[kind]:
        described = ", ".join(f"{name} {type_.__name__}" for name, type_ in _ENTRIES[kind].items())
        raise MalformedMessageError(f"a {kind} whose entries are not {described}")
    return message


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
        UserError: The file cannot be read, or is empty.
    """
    if path is None:
        return None
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read the token in {path}: {error}.") from error
    if not token:
        raise UserError(f"{path} holds no token: write one into it, for example with 'openssl rand -hex 32'.")
    return token
