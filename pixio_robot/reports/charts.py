"""Curves over training steps, bars with intervals, and pictures as files."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from PIL import Image

from pixio_robot.common.storage.files import atomic_path

# More points than this are averaged in as many groups: a line of 500 px shows no more, and noise hides the trend.
_MAX_POINTS = 240
# Readable on white and on black: a page in light or dark shows the same picture.
_CURVE_COLOUR, _TEXT_COLOUR = "#3f7ee8", "#727b8a"
CURVE = "curve"
"""Name of the group in the SVG that holds the line."""


def line_chart(steps: Sequence[float], values: Sequence[float], label: str, *, logarithmic: bool) -> bytes:
    """Draw values over training steps as SVG without a background.

    Args:
        steps: Step of every value, increasing.
        values: Finite values.
        label: What the values are.
        logarithmic: Whether to draw the values on a logarithmic axis; one that meets values of zero or less is linear.
    """
    assert len(steps) == len(values) > 0
    n_groups = min(len(steps), _MAX_POINTS)
    steps, values = ([part.mean() for part in np.array_split(np.asarray(some), n_groups)] for some in (steps, values))
    with matplotlib.rc_context():
        matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": label, "path.simplify": False})
        matplotlib.rcParams.update({"font.size": 9, "xtick.color": _TEXT_COLOUR, "ytick.color": _TEXT_COLOUR})
        figure = Figure(figsize=(4.6, 2.2), layout="constrained")
        axes = figure.subplots()
        axes.plot(steps, values, color=_CURVE_COLOUR, linewidth=1.6, gid=CURVE)
        axes.plot(steps[-1], values[-1], "o", color=_CURVE_COLOUR, markersize=4)
        if logarithmic and min(values) > 0:
            decades = np.log10(max(values) / min(values))
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(
                MaxNLocator(5, steps=(1, 2, 5, 10))
                if decades < 1
                else LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,))
            )
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_ylim(bottom=min(0.0, *values))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.set_xlabel("training step", color=_TEXT_COLOUR)
        axes.set_ylabel(label, color=_TEXT_COLOUR)
        axes.grid(axis="y", color=_TEXT_COLOUR, alpha=0.25, linewidth=0.6)
        axes.tick_params(length=0, which="both")
        axes.spines[:].set_visible(False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


def save_figure(figure: Figure, file: Path) -> None:
    """Write a figure as what the file's name says, PNG or PDF."""
    with atomic_path(file) as unfinished:
        figure.savefig(unfinished, format=file.suffix[1:], dpi=120)


def save_picture(picture: np.ndarray, file: Path) -> None:
    """Write a uint8 RGB picture as PNG."""
    with atomic_path(file) as unfinished:
        Image.fromarray(picture).save(unfinished, format="PNG")


def whiskers(cells: Sequence[Mapping[str, Any]]) -> tuple[list[float], tuple[list[float], list[float]]]:
    """Return success rates, and how far their intervals reach below and above, of cells of a table."""
    rates = [cell["successes"] / cell["episodes"] for cell in cells]
    below = [rate - cell["ci95"][0] for rate, cell in zip(rates, cells, strict=True)]
    above = [cell["ci95"][1] - rate for rate, cell in zip(rates, cells, strict=True)]
    return rates, (below, above)


def side_by_side(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Put uint8 RGB pictures of any heights beside each other, with white below the lower ones."""
    height = max(len(picture) for picture in pictures)
    padded = [np.pad(one, ((0, height - len(one)), (0, 0), (0, 0)), constant_values=255) for one in pictures]
    return np.concatenate(padded, axis=1)
