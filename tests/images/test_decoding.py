"""Known colours through every kind of image file: what a file says of itself is honoured."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from pixio_robot.images.decoding import decode

COLOURS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 50, 100)], np.uint8)
CARD = np.repeat(np.repeat(COLOURS[None], 32, 0), 16, 1)  # stripes of 16 pixels
GREYS = np.repeat(np.linspace(0, 255, 16, dtype=np.uint8)[None], 8, 0)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decoded(content: bytes, **options: bool) -> np.ndarray:
    image = decode(content, **options)  # pyright: ignore[reportArgumentType]
    assert not isinstance(image, Exception), image
    return np.asarray(image)


def stripes(pixels: np.ndarray) -> np.ndarray:
    """The mean of the middle of each stripe."""
    return np.stack([pixels[8:24, 16 * n + 4 : 16 * n + 12].mean((0, 1)) for n in range(len(COLOURS))])


@pytest.mark.parametrize(
    ("kind", "mode", "tolerance"),
    [("PNG", "RGB", 0), ("BMP", "RGB", 0), ("TIFF", "RGB", 0), ("PNG", "P", 0), ("JPEG", "RGB", 3), ("WEBP", "RGB", 5)]
    + [("JPEG", "CMYK", 4), ("TIFF", "CMYK", 1), ("PNG", "RGBA", 0)],
)
def test_colours_come_back(kind, mode, tolerance):
    image = Image.fromarray(CARD)
    image = image.quantize(8) if mode == "P" else image.convert(mode)
    options = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    assert np.abs(stripes(decoded(encoded(image, kind, **options))) - COLOURS).max() <= tolerance


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_greys_of_any_depth(kind):
    expected = np.repeat(GREYS[..., None], 3, -1)
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(GREYS), kind)), expected)
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(GREYS.astype(np.uint16) * 257), kind)), expected)
    bilevel = decoded(encoded(Image.fromarray(GREYS > 127), kind))
    np.testing.assert_array_equal(bilevel, (expected > 127) * np.uint8(255))


def tiff(values: np.ndarray, **tags: int) -> bytes:
    """Write greys of 16 bits as they are, with tags that Pillow does not write."""
    height, width = values.shape
    known = {256: width, 257: height, 258: 16, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: values.nbytes}
    entries = sorted((known | {int(name[1:]): value for name, value in tags.items()}).items())
    described = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    start = struct.pack("<2sHI", b"II", 42, 8 + values.nbytes) + values.tobytes()
    return start + struct.pack("<H", len(entries)) + described + struct.pack("<I", 0)


def test_greys_of_tiff_are_what_its_tags_say():
    expected = np.repeat(GREYS[..., None], 3, 2)
    deep = GREYS.astype(np.uint16) * 257
    np.testing.assert_array_equal(decoded(tiff(deep)), expected)
    np.testing.assert_array_equal(decoded(tiff(65535 - deep, t262=0)), expected)  # white is zero
    np.testing.assert_array_equal(decoded(tiff((deep // 2).astype(np.int16), t339=2)), expected)  # signed
    upside_down = np.ascontiguousarray(65535 - deep[::-1, ::-1])
    np.testing.assert_array_equal(decoded(tiff(upside_down, t262=0, t274=3)), expected)
    negative = decode(tiff(-(deep // 2).astype(np.int16), t339=2))
    assert isinstance(negative, ValueError) and "more than 16 bits hold" in str(negative)


def test_pixels_without_a_range_are_refused():
    error = decode(encoded(Image.fromarray(GREYS.astype(np.float32)), "TIFF"))
    assert isinstance(error, ValueError) and "of a range that the file does not say" in str(error)
    error = decode(encoded(Image.fromarray(GREYS.astype(np.int32) * 1_000_000), "TIFF"))
    assert isinstance(error, ValueError) and "more than 16 bits hold" in str(error)


def test_what_is_transparent_shows_white_and_no_noise():
    noise = np.random.default_rng(0).integers(0, 256, (32, 96, 3), np.uint8)
    hidden = np.arange(96) < 48
    alpha = np.where(hidden, 0, 255).astype(np.uint8)[None].repeat(32, 0)
    pixels = np.where(hidden[None, :, None], noise, CARD)
    content = encoded(Image.fromarray(np.dstack([pixels, alpha])), "PNG")
    expected = np.where(hidden[None, :, None], 255, CARD)
    np.testing.assert_array_equal(decoded(content), expected)
    np.testing.assert_array_equal(decoded(content, opaque=True), pixels)  # of a camera the fourth channel means nothing
    palette = Image.fromarray(CARD).quantize(8)
    red = palette.getpixel((4, 4))
    seen = stripes(decoded(encoded(palette, "PNG", transparency=red)))
    np.testing.assert_array_equal(seen, [(255, 255, 255), *COLOURS[1:].tolist()])


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda a: a),
        (3, lambda a: a[::-1, ::-1]),
        (6, lambda a: np.rot90(a, -1)),
        (8, np.rot90),
        (2, lambda a: a[:, ::-1]),
    ],
)
def test_upright_by_what_the_file_says(orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(CARD), "PNG", exif=exif)), turn(CARD))


def swapping_profile() -> bytes:
    """A profile in which red and blue have each other's place, made of Pillow's own."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace(b"rXYZ", b"?XYZ").replace(b"bXYZ", b"rXYZ").replace(b"?XYZ", b"bXYZ")
    return profile.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_a_colour_profile_is_applied(kind):
    options = {"quality": 95} if kind == "JPEG" else {}
    seen = stripes(decoded(encoded(Image.fromarray(CARD), kind, icc_profile=swapping_profile(), **options)))
    assert np.abs(seen - COLOURS[:, ::-1]).max() <= 4
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert (
        np.abs(stripes(decoded(encoded(Image.fromarray(CARD), kind, icc_profile=own, **options))) - COLOURS).max() <= 3
    )
    damaged = encoded(Image.fromarray(CARD), kind, icc_profile=own[:100], **options)
    assert np.abs(stripes(decoded(damaged)) - COLOURS).max() <= 3


def test_an_image_too_large_for_memory_is_named_by_its_size():
    content = encoded(Image.new("1", (30_000, 10_000)), "PNG")
    assert "30000 x 10000 pixels are more than 200,000,000" in str(decode(content))
