"""How frames are compressed in a demonstration store: without loss, or, where asked for, as JPEG or JPEG XL."""

from collections.abc import Callable
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import blosc  # pyright: ignore[reportAttributeAccessIssue] (compiled)
from zarr.codecs import BloscCodec, Crc32cCodec

from pixio_robot.common.errors import UserError, nearest_name

LOSSLESS, JPEG, JPEG_XL = "lossless", "jpeg", "jpegxl"
CODECS = {
    # Decodes as fast as lz4, and makes three quarters of its size of camera frames.
    LOSSLESS: "blosc-lz4hc, crc32c",
    JPEG: "jpeg quality 95, crc32c",
    JPEG_XL: "jpegxl distance 1, crc32c",
}
"""What the attribute ``codec`` of a store says of each choice."""

_JPEG_QUALITY = 95
_JPEG_XL_DISTANCE = 1.0  # "visually lossless" by the JPEG XL reference encoder

# The checksum behind the compressor turns a flipped bit or a missing end into an error instead of wrong numbers.
COMPRESSORS = (BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"), Crc32cCodec())
_FRAME_COMPRESSORS = (BloscCodec(cname="lz4hc", clevel=2, shuffle="noshuffle"), Crc32cCodec())

Decoder = Callable[[bytes, np.ndarray], None]
"""Decodes a chunk into a frame."""


def is_lossless(codec: str) -> bool:
    """Return whether frames come back bit for bit, by the attribute ``codec`` of a store."""
    return codec not in (CODECS[JPEG], CODECS[JPEG_XL])


def check_codec(codec: str) -> None:
    """Look, before there is anything to write, whether frames can be kept so.

    Raises:
        UserError: The codec is unknown or not installed.
    """
    frame_codecs(codec, 3)


def frame_codecs(codec: str, channels: int) -> dict[str, Any]:
    """Return what `zarr.Group.create_array` takes for frames of so many channels.

    Raises:
        UserError: The codec is unknown or not installed.
    """
    if codec not in CODECS:
        raise UserError(f"Unknown codec {codec!r}. {nearest_name(codec, CODECS)}")
    if codec == LOSSLESS or channels != 3:
        return {"compressors": _FRAME_COMPRESSORS}
    codecs = _imagecodecs(f"codec={codec}")
    if codec == JPEG:
        return {"serializer": codecs.Jpeg(level=_JPEG_QUALITY), "compressors": (Crc32cCodec(),)}
    return {"serializer": codecs.Jpegxl(distance=_JPEG_XL_DISTANCE, numthreads=1), "compressors": (Crc32cCodec(),)}


def register_codecs_of(attributes: dict[str, Any], what: str) -> None:
    """Make zarr able to read the frames of a store with such attributes.

    Raises:
        UserError: What they are compressed with is not installed.
    """
    if not is_lossless(attributes.get("codec", "")):
        _imagecodecs(what)


def decoder_of(names: list[str]) -> Decoder | None:
    """Return what decodes the chunks of codecs of these names, in zarr's order; None where only zarr does."""
    if names[-1:] != ["crc32c"]:
        return None
    if names == ["bytes", "blosc", "crc32c"]:
        return _checked(lambda data, frame: blosc.decompress(data, frame))
    if names == ["imagecodecs_jpeg", "crc32c"]:
        from imagecodecs import jpeg8_decode

        return _checked(lambda data, frame: jpeg8_decode(data, out=frame))
    if names == ["imagecodecs_jpegxl", "crc32c"]:
        from imagecodecs import jpegxl_decode

        return _checked(lambda data, frame: jpegxl_decode(data, numthreads=1, out=frame))
    return None


def _checked(decode: Callable[[memoryview, np.ndarray], object]) -> Decoder:
    """Look at the checksum behind a chunk first."""

    def check_and_decode(chunk: bytes, frame: np.ndarray) -> None:
        if google_crc32c.value(chunk[:-4]).to_bytes(4, "little") != chunk[-4:]:
            raise ValueError("the checksum of a frame does not match")
        decode(memoryview(chunk)[:-4], frame)

    return check_and_decode


def _imagecodecs(what: str) -> Any:  # noqa: ANN401 (a module that may not be there)
    try:
        import imagecodecs.zarr
    except ImportError as error:
        raise UserError(f"{what} needs the package imagecodecs: pip install 'pixio-robot[imagecodecs]'.") from error
    imagecodecs.zarr.register_codecs({JPEG, JPEG_XL}, verbose=False)
    return imagecodecs.zarr
