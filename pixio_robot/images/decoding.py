"""Encoded image files become upright RGB arrays."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def decode(file: Path | bytes, side: int | None = None) -> Image.Image | Exception:
    """Decode an image file or its bytes to upright RGB, or return the error that stands in the way.

    Args:
        file: An image that Pillow can read.
        side: A JPEG may come out smaller, its shorter side still at least this many pixels; that is much faster.
    """
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            if side:
                image.draft("RGB", (side, side))
            return ImageOps.exif_transpose(image).convert("RGB")
    # Pillow's decoders raise many kinds of errors on damaged files; none of them may end a long run.
    except Exception as error:
        return error


def shrink(image: Image.Image, side: int) -> np.ndarray:
    """Make the shorter side of an image at most `side` pixels, aspect kept: uint8 (H, W, 3)."""
    scale = side / min(image.size)
    if scale < 1:
        width, height = (max(1, round(length * scale)) for length in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.array(image)  # a copy: torch wants writable memory
