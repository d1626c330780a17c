"""Frames in arrays of other formats, of whatever range, depth and channels, become RGB bytes.

Letters of shape suffixes: T steps, H and W height and width, C channels.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pixio_robot.common.errors import UserError

BYTE, UNIT, DEEP = 255, 1, 65535
"""The values that are white: of bytes, of floats from 0 to 1, and of 16 bits."""


def white_of(path: Path, name: str, dtype: str, episodes: Iterable[np.ndarray]) -> int:
    """Return which value of an array is white, by as many of its episodes as it takes.

    Whole numbers up to 255 are bytes, whatever their dtype; floats that stay within 1 reach from 0 to 1; integers beyond a
    byte have 16 bits.

    Raises:
        UserError: Values fit none of these, or are not finite.
    """
    if dtype == "uint8":
        return BYTE
    if dtype == "bool":
        return UNIT
    is_float = np.dtype(dtype).kind == "f"
    highest = 0.0
    for number, values in enumerate(episodes):
        if not values.size:
            continue
        low, high = float(values.min()), float(values.max())  # NaN if one is
        if not (low >= 0 and high <= DEEP):
            raise _unusable(path, name, number, f"values from {low:.6g} to {high:.6g}")
        highest = max(highest, high)
        if is_float:
            is_whole = bool((values == np.rint(values)).all())
            if highest > 1 and (not is_whole or highest > BYTE):
                raise _unusable(path, name, number, f"{dtype} from {low:.6g} to {high:.6g}")
            if highest > 1 or not is_whole:
                return BYTE if highest > 1 else UNIT
    if is_float:
        return UNIT  # black and white alone
    return BYTE if highest <= BYTE else DEEP


def as_frames(path: Path, name: str, number: int, values: np.ndarray, size: tuple[int, int], white: int) -> np.ndarray:
    """Return the frames of an episode, uint8 (T, H, W, 3).

    Args:
        path: Where they are from, for the messages.
        name: The array, for the messages.
        number: The episode, for the messages.
        values: (T, H, W), (T, H, W, C) or (T, C, H, W) with 1, 3 or 4 channels, of which the fourth is left out.
        size: Height and width.
        white: See `white_of`.

    Raises:
        UserError: They hold values that do not belong to the range.
    """
    if values.ndim == 3:
        values = values[..., None]
    elif values.shape[1:3] != size:
        values = np.moveaxis(values, 1, -1)
    values = values[..., :3] if values.shape[-1] == 4 else values
    if values.dtype != np.uint8:
        values = _bytes(path, name, number, values, white)
    if values.shape[-1] == 1:
        values = np.repeat(values, 3, axis=-1)
    return np.ascontiguousarray(values)


def _bytes(path: Path, name: str, number: int, values: np.ndarray, white: int) -> np.ndarray:
    if values.dtype != bool and values.size:
        low, high = float(values.min()), float(values.max())
        is_whole = white != BYTE or bool((values == np.rint(values)).all())
        if not (low >= 0 and high <= white and is_whole):
            raise _unusable(
                path, name, number, f"values from {low:.6g} to {high:.6g} where others reach from 0 to {white}"
            )
    if white == BYTE:
        return values.astype(np.uint8)
    if white == UNIT:
        return np.rint(values.astype(np.float32) * BYTE).astype(np.uint8)
    return np.rint(values / (DEEP / BYTE)).astype(np.uint8)


def _unusable(path: Path, name: str, number: int, found: str) -> UserError:
    return UserError(
        f"{path} has frames {name} of {found} in episode {number}, which are neither whole numbers from 0 to 255 nor floats from "
        "0 to 1 nor 16 bits: store them as uint8 first."
    )
