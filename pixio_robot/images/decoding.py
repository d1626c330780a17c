"""Encoded image files become upright RGB arrays, by what a file says of its depth, colours, orientation and transparency."""

import functools
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT, TiffImageFile

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

_MOST_PIXELS = 200_000_000  # 0.6 GB as RGB
# Pillow's own limit is an error from twice its number on, and a warning before.
Image.MAX_IMAGE_PIXELS = _MOST_PIXELS


def decode(file: Path | bytes, side: int | None = None, *, opaque: bool = False) -> Image.Image | Exception:
    """Decode an image file or its bytes to upright sRGB, or return the error that stands in the way.

    Greys of 16 bits are scaled to 8. What is transparent shows white behind it.

    Args:
        file: An image that Pillow can read.
        side: A JPEG may come out smaller, its shorter side still at least this many pixels; that is much faster.
        opaque: Whether transparency means nothing, as in the fourth channel of a camera.
    """
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            if image.width * image.height > _MOST_PIXELS:
                return ValueError(f"{image.width} x {image.height} pixels are more than {_MOST_PIXELS:,}")
            if side:
                image.draft("RGB", (side, side))
            greys = _greys_of_tiff(image)
            return _as_rgb(ImageOps.exif_transpose(image if greys is None else greys), opaque)
    # Pillow's decoders raise many kinds of errors on damaged files; none of them may end a long run.
    except Exception as error:
        return error


def _greys_of_tiff(image: Image.Image) -> Image.Image | None:
    """Return greys of 16 bits from black to white where a TIFF says that they are signed, or that white is zero.

    Pillow heeds neither. None is for any other image, and for one without such tags.
    """
    if not isinstance(image, TiffImageFile) or not image.mode.startswith("I"):
        return None
    tags = image.tag_v2
    is_signed = tags.get(SAMPLEFORMAT) == (2,) and tags.get(BITSPERSAMPLE) == (16,)
    is_white_zero = tags.get(PHOTOMETRIC_INTERPRETATION) == 0
    if not is_signed and not is_white_zero:
        return None
    values = np.asarray(image).astype(np.int32)
    values = values * 2 + (values > 0) if is_signed else values  # 32767 is white
    greys = Image.fromarray(65535 - values if is_white_zero else values)
    greys.info = {"exif": image.getexif().tobytes()}
    return greys


def _as_rgb(image: Image.Image, opaque: bool) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floats, of a range that the file does not say")
    if image.mode.startswith("I"):  # 16 bits, or 32, in which some writers keep 16
        return Image.fromarray(eight_bits(np.asarray(image))).convert("RGB")
    if image.mode == "P" or image.mode == "1":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if not opaque and image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        ground.info = image.info
        image = Image.alpha_composite(ground, image)
        image.info = ground.info
    profile = image.info.get("icc_profile")
    if profile:
        image = _as_srgb(image.convert("RGB") if image.mode not in ("RGB", "CMYK", "L") else image, profile)
    return image.convert("RGB")


def eight_bits(values: np.ndarray) -> np.ndarray:
    """Scale whole numbers of 16 bits to 8.

    Raises:
        ValueError: They do not fit into 16 bits.
    """
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise ValueError(f"its pixels reach from {values.min()} to {values.max()}, which is more than 16 bits hold")
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _as_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    try:
        transform = _to_srgb(profile, image.mode)
    except (ImageCms.PyCMSError, OSError, ValueError):  # a damaged profile says nothing
        return image
    return image if transform is None else ImageCms.applyTransform(image, transform) or image


@functools.lru_cache(maxsize=64)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return how to turn the colours of a profile into sRGB; None where they are sRGB."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if "srgb" in ImageCms.getProfileDescription(source).lower():
        return None
    return ImageCms.buildTransform(source, _srgb(), mode, "RGB")


@functools.cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def shrink(image: Image.Image, side: int) -> np.ndarray:
    """Make the shorter side of an image at most `side` pixels, aspect kept: uint8 (H, W, 3)."""
    scale = side / min(image.size)
    if scale < 1:
        width, height = (max(1, round(length * scale)) for length in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.array(image)  # a copy: torch wants writable memory
