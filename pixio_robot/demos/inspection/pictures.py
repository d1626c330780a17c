"""Pictures of a demonstration store: episode lengths, histograms of its signals, camera strips, a video."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont

from pixio_robot.demos.inspection.inspection import read_whole
from pixio_robot.demos.store.store import DemoStore
from pixio_robot.reports.charts import save_figure, save_picture
from pixio_robot.reports.videos import write_rollout_video

STRIP_HEIGHT = 160
"""Pixels of a frame in the strip."""
STRIP_CAPTION, STRIP_GAP = 40, 4
"""Pixels above each row of the strip, and between its frames."""
_STRIP_FRAMES = 8

_MAX_DIMENSIONS_DRAWN = 32
_HISTOGRAM_COLUMNS = 7
_BINS = 40


def save_strip(store: DemoStore, episode: int, fps: float, file: Path) -> None:
    """Show frames spread evenly over an episode, a row for each camera, as PNG."""
    steps = store.episode_range(episode)
    chosen = np.unique(np.linspace(steps.start, steps.stop - 1, _STRIP_FRAMES).round().astype(np.int64))
    shapes = {key: store.features[key].shape for key in store.image_keys}
    widths = {key: round(STRIP_HEIGHT * shape[1] / shape[0]) for key, shape in shapes.items()}
    row_height = STRIP_CAPTION + STRIP_HEIGHT + STRIP_GAP
    width = max(widths.values()) * len(chosen) + STRIP_GAP * (len(chosen) + 1)
    canvas = Image.new("RGB", (width, row_height * len(widths)), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=13)
    for row, (key, frame_width) in enumerate(widths.items()):
        frames = store.read_steps(key, chosen)
        top = row * row_height
        draw.text((STRIP_GAP, top + 3), f"{key.removeprefix('observation.images.')}, episode {episode}", "black", font)
        for column, (step, frame) in enumerate(zip(chosen - steps.start, frames, strict=True)):
            left = STRIP_GAP + column * (frame_width + STRIP_GAP)
            draw.text((left, top + 21), f"{step / fps:.2f} s", "black", font)
            picture = Image.fromarray(frame).resize((frame_width, STRIP_HEIGHT), Image.Resampling.BICUBIC)
            canvas.paste(picture, (left, top + STRIP_CAPTION))
    save_picture(np.asarray(canvas), file)


def save_video(store: DemoStore, episode: int, fps: float, file: Path) -> None:
    """Write an episode as mp4, the cameras side by side."""
    steps = store.episode_range(episode)
    cameras = {key: read_whole(store, key, steps.start, steps.stop) for key in store.image_keys}
    frames = [{key: video[step] for key, video in cameras.items()} for step in range(len(steps))]
    write_rollout_video(file, frames, max(1, round(fps)))


def save_lengths(episode_lengths: Sequence[int], fps: float, file: Path) -> None:
    """Draw how many episodes are how long, as PNG."""
    lengths = np.array(episode_lengths)
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.add_subplot()
    # Bins of whole steps, so that none is empty for want of a number.
    bin_width = max(1, math.ceil((lengths.max() - lengths.min() + 1) / _BINS))
    axes.hist(lengths, np.arange(lengths.min(), lengths.max() + bin_width + 1, bin_width) - 0.5)
    median = float(np.median(lengths))
    axes.axvline(median, color="black", linewidth=1, linestyle="--", label=f"median {median:g}")
    axes.set_xlabel("steps of an episode")
    axes.set_ylabel("episodes")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    seconds = axes.secondary_xaxis("top", functions=(lambda n: np.asarray(n) / fps, lambda s: np.asarray(s) * fps))
    seconds.set_xlabel(f"seconds at {fps:g} fps")
    axes.spines["right"].set_visible(False)
    axes.legend(frameon=False)
    save_figure(figure, file)


def save_histograms(
    signals: Mapping[str, np.ndarray],
    names: Mapping[str, Sequence[str]],
    units: Mapping[str, Sequence[str]],
    file: Path,
) -> None:
    """Draw a histogram of each dimension of signals (T, D), as PNG; values that are not finite are left out.

    Args:
        signals: By key.
        names: Of the dimensions of a key, where they are known; numbers stand for others.
        units: Of the dimensions, written under each.
        file: The picture.
    """
    drawn = {key: values[:, :_MAX_DIMENSIONS_DRAWN] for key, values in signals.items()}
    rows = [math.ceil(values.shape[1] / _HISTOGRAM_COLUMNS) for values in drawn.values()]
    figure = Figure(figsize=(1.9 * _HISTOGRAM_COLUMNS, sum(1.7 * n + 0.4 for n in rows)), layout="constrained")
    parts = figure.subfigures(len(drawn), 1, squeeze=False, height_ratios=[1.7 * n + 0.4 for n in rows])[:, 0]
    for part, n_rows, (key, values_TD) in zip(parts, rows, drawn.items(), strict=True):
        n_left_out = signals[key].shape[1] - values_TD.shape[1]
        part.suptitle(
            key + (f" (first {values_TD.shape[1]} dimensions)" if n_left_out else ""), x=0.003, ha="left", fontsize=11
        )
        cells = part.subplots(n_rows, _HISTOGRAM_COLUMNS, squeeze=False).ravel()
        for dimension, axes in enumerate(cells):
            if dimension < values_TD.shape[1]:
                column = values_TD[:, dimension].astype(np.float64)
                axes.hist(column[np.isfinite(column)], _edges(column[np.isfinite(column)]))
                axes.set_title(names[key][dimension] if key in names else str(dimension), fontsize=9, loc="left")
                axes.set_xlabel(units[key][dimension], fontsize=7)
                axes.tick_params(labelsize=7)
                axes.set_yticks([])
                axes.locator_params(axis="x", nbins=4)
                axes.spines[["top", "right", "left"]].set_visible(False)
            else:
                axes.set_axis_off()
    save_figure(figure, file)


def _edges(values: np.ndarray) -> np.ndarray:
    """Return edges of bins that cover the values, also where these are all the same or there are none."""
    low, high = (float(np.min(values)), float(np.max(values))) if len(values) else (0.0, 0.0)
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        margin = max(1.0, abs(low)) / 2
        low, high = low - margin, high + margin
    return np.linspace(low, high, _BINS + 1)
