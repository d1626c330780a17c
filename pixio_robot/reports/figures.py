"""Figures and pictures as files, each written whole or not at all."""

import io
import os
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image


def save_figure(figure: Figure, file: Path) -> None:
    """Write a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    _write(buffer.getvalue(), file)


def save_picture(picture: np.ndarray, file: Path) -> None:
    """Write a uint8 RGB picture as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    _write(buffer.getvalue(), file)


def _write(data: bytes, file: Path) -> None:
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_bytes(data)
    os.replace(unfinished, file)
