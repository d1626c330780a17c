"""openpi's policy-client protocol, spoken by our server at `/`, so that a robot's program written for it can ask our policies.

After connecting, the server sends its metadata; each request is a map of the observation, each answer a map with `actions`
(H, A) and `server_timing`; a refusal is text, after which the connection ends. An array is a map of `__ndarray__`, `data`,
`dtype` and `shape`, the keys as bytes (`openpi_client.msgpack_numpy`). A key goes as `Authorization: Api-Key <token>`.
"""

from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np

from pixio_robot.common.errors import UserError
from pixio_robot.deployment.remote.protocol import MalformedMessageError, unpack
from pixio_robot.deployment.runtime.observation import TASK, Arrays, observed_keys, task_number

OPENPI_PATH, OPENPI_HEALTH_PATH = "/", "/healthz"
# By name: what a message calls a dtype may be a structure, or Python objects.
_DTYPES = {"|u1": np.uint8, "<f4": np.float32, "<f8": np.float64}
_NUMBERS = {np.float32: np.float32, np.float64: np.float32, np.uint8: np.uint8}


def pack(message: Mapping[str, Any]) -> bytes:
    """Return a message as bytes."""
    packed = msgpack.packb(message, default=_pack_array)
    assert packed is not None
    return packed


def unpack_observation(received: object, metadata: Mapping[str, Any]) -> Arrays:
    """Return an observation as the artifact reads it, with the axis of the batch.

    Args:
        received: What came. Keys may be LeRobot's (`observation.images.front`), with slashes for dots, and without what
            they begin with (`images/front`, `front`, `state`); others are left out. With more than one
            observation step the arrays have an axis of steps first. `prompt` says the task to an artifact of several.
        metadata: Of the artifact.

    Raises:
        MalformedMessageError: It is no such message.
        UserError: A key is missing, or two are one, or the prompt is none of the artifact's tasks.
    """
    if not isinstance(received, bytes):
        raise MalformedMessageError("text instead of bytes")
    message = unpack(received, _unpack_array)
    if not isinstance(message, dict) or not all(isinstance(key, str) for key in message):
        raise MalformedMessageError("no map of texts")
    wanted = observed_keys(metadata)
    by_name = {name: key for key in wanted for name in _names_of(key)}
    found: Arrays = {}
    for given, value in message.items():
        key = by_name.get(given.replace("/", "."))
        if key is None:
            continue
        if key in found:
            raise UserError(f"The observation has {key} twice.")
        if not isinstance(value, np.ndarray):
            raise UserError(f"{key} brings a {type(value).__name__}, expected an array.")
        found[key] = value.astype(_NUMBERS[value.dtype.type])[None]
    number = task_number(metadata, message.get("prompt"))
    if number is not None:
        found[TASK] = np.array([number])
    missing = [key for key in wanted if key not in found]
    if missing:
        raise UserError(
            f"The observation lacks {', '.join(missing)}; it has {', '.join(sorted(message)) or 'nothing'}."
        )
    return found


def _names_of(key: str) -> set[str]:
    return {key, key.removeprefix("observation."), key.rpartition(".")[2]}


def _pack_array(value: object) -> dict[bytes, Any]:
    assert isinstance(value, np.ndarray)
    return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": list(value.shape)}


def _unpack_array(entries: dict[Any, Any]) -> object:
    if b"__ndarray__" not in entries:
        return entries
    dtype, shape, data = _DTYPES[entries[b"dtype"]], entries[b"shape"], entries[b"data"]
    if not isinstance(data, bytes) or not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError("an array whose data are no bytes, or whose shape has other numbers than 0, 1, 2, …")
    return np.frombuffer(data, dtype).reshape(shape)
