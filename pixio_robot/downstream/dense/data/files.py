"""Images, depths and classes as files hold them.

Shape letters: H and W pixels.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from pixio_robot.common.errors import UserError
from pixio_robot.downstream.dense.data.sets import IGNORED
from pixio_robot.images.decoding import decode


def read_image(path: Path) -> np.ndarray:
    """Read an image, uint8 (H, W, 3).

    Raises:
        UserError: It cannot be read.
    """
    image = decode(path)
    if isinstance(image, Exception):
        raise UserError(f"{path} cannot be read as an image ({image}).")
    return np.array(image)


def read_depth(path: Path, units: int) -> np.ndarray:
    """Read a depth image of 16 bits, float32 (H, W) metres, zero where nothing was measured.

    Args:
        path: PNG.
        units: So many to a metre.

    Raises:
        UserError: It cannot be read, or is of another bit depth.
    """
    image = _open(path)
    if image.mode not in ("I;16", "I;16B", "I"):
        raise UserError(
            f"{path} is an image of mode {image.mode}; expected one channel of 16 bits with {units} to a metre."
        )
    return (np.asarray(image).astype(np.float32)) / units


def read_classes(path: Path, classes: int, *, shifted: bool) -> np.ndarray:
    """Read a label image, uint8 (H, W), `IGNORED` where nothing is labelled.

    Args:
        path: PNG of one channel, or of a palette, whose indices are what counts.
        classes: How many there are.
        shifted: Whether 0 stands for unlabelled and classes begin at 1.

    Raises:
        UserError: It cannot be read, has another kind of pixel, or a label beyond the classes.
    """
    image = _open(path)
    if image.mode not in ("L", "P"):
        raise UserError(f"{path} is an image of mode {image.mode}; expected class numbers in one channel of 8 bits.")
    stored = np.asarray(image)
    labels = (stored - 1).astype(np.uint8) if shifted else stored.copy()  # 0 - 1 is 255 in eight bits
    wrong = labels[(labels >= classes) & (labels != IGNORED)]
    if len(wrong):
        number = int(wrong.max()) + shifted
        highest = classes - 1 + shifted
        raise UserError(
            f"{path} has the label {number}; there are {classes} classes, and the highest label is {highest}."
        )
    return labels


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except Exception as error:  # Pillow raises many kinds on damaged files
        raise UserError(f"{path} cannot be read as an image ({error}).") from error
