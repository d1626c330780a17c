"""Matplotlib figures as files."""

import io
from pathlib import Path

from matplotlib.figure import Figure


def save_figure(figure: Figure, file: Path) -> None:
    """Write a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    file.write_bytes(buffer.getvalue())
