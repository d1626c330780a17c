"""Figures and pictures as files."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from pixio_robot.common.files import atomic_path


def save_figure(figure: Figure, file: Path) -> None:
    """Write a figure as PNG."""
    with atomic_path(file) as unfinished:
        figure.savefig(unfinished, format="png", dpi=120)


def save_picture(picture: np.ndarray, file: Path) -> None:
    """Write a uint8 RGB picture as PNG."""
    with atomic_path(file) as unfinished:
        Image.fromarray(picture).save(unfinished, format="PNG")
