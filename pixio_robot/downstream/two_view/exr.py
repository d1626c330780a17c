"""Depth maps as OpenEXR files of one float channel, through FFmpeg's codec in PyAV."""

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from pixio_robot.common.errors import UserError

if TYPE_CHECKING:
    import av

_GREY = "grayf32le"
_COLOURS = ("gbrpf32le", "gbrapf32le")


def write_exr(path: Path, depth_HW: np.ndarray) -> None:
    """Write float32 values as they are, infinite ones included, in the channel Y."""
    import av

    height, width = depth_HW.shape
    codec = cast("av.VideoCodecContext", av.CodecContext.create("exr", "w"))
    codec.width, codec.height, codec.pix_fmt, codec.time_base = width, height, _GREY, Fraction(1)
    codec.options = {"compression": "zip16"}
    frame = av.VideoFrame(width, height, _GREY)
    rows = np.zeros((height, frame.planes[0].line_size // 4), np.float32)  # rows end where FFmpeg likes
    rows[:, :width] = depth_HW
    frame.planes[0].update(rows.tobytes())
    frame.pts = 0
    path.write_bytes(b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)]))


def read_exr(path: Path) -> np.ndarray:
    """Return the values of an image of one channel (H, W), float32; half-precision ones become float32.

    Raises:
        UserError: It is no such file.
    """
    import av
    from av.error import FFmpegError

    try:
        codec = cast("av.VideoCodecContext", av.CodecContext.create("exr", "r"))
        frame = [*codec.decode(av.Packet(path.read_bytes())), *codec.decode(None)][0]
    except (FFmpegError, IndexError) as error:
        raise UserError(f"{path} is no OpenEXR image that FFmpeg can read; write the depth map again.") from error
    planes = [
        np.frombuffer(plane, np.float32).reshape(plane.height, -1)[:, : frame.width].copy() for plane in frame.planes
    ]
    name = frame.format.name
    if name == _GREY or (name in _COLOURS and all(np.array_equal(planes[0], plane) for plane in planes[1:3])):
        return planes[0]
    raise UserError(f"{path} holds colours ({name}), where a depth map has one channel of floats.")
