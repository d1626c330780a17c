"""Bars with intervals, readable from two to forty rows and at any length of a label."""

import io
import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pixio_robot.common.storage.files import atomic_path
from pixio_robot.downstream.results import TaskTable, heading
from pixio_robot.downstream.task import Metric

_PANELS_IN_A_ROW = 3
_ENCODER, _BASELINE, _BEST = "#8fa6c9", "#c9ced6", "#2f6feb"


def save_figure_for_paper(found: Sequence[TaskTable], file: Path) -> None:
    """Draw every task's first metric, a panel each, as PDF."""
    figure = _panels([(table, table.metrics[0], table.title) for table in found])
    with atomic_path(file) as unfinished:
        figure.savefig(unfinished, format="pdf")


def chart(table: TaskTable) -> bytes:
    """Draw a task's metrics, a panel each, as PNG."""
    figure = _panels([(table, metric, None) for metric in table.metrics])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _panels(panels: Sequence[tuple[TaskTable, Metric, str | None]]) -> Figure:
    across = min(_PANELS_IN_A_ROW, len(panels))
    down = -(-len(panels) // across)
    rows = max(len(table.rows) for table, _, _ in panels)
    longest = max(len(label) for table, _, _ in panels for label in table.rows)
    size = (across * (2.6 + 0.075 * min(longest, 60)), down * (0.75 + 0.26 * rows))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for one, (table, metric, title) in zip(axes, panels, strict=False):
        _bars(one, table, metric, title)
    for unused in axes[len(panels) :]:
        unused.set_axis_off()
    return figure


def _bars(axes: Axes, table: TaskTable, metric: Metric, title: str | None) -> None:
    labels, best = list(table.rows), table.best(metric)
    values = [table.rows[label][metric.name] for label in labels]
    means = [metric.factor * (value.mean or 0.0) for value in values]
    # No whiskers where there is no interval.
    ends = [value.ci95 or (math.nan, math.nan) for value in values]
    below, above = (
        [abs(metric.factor * end[side] - mean) for mean, end in zip(means, ends, strict=True)] for side in (0, 1)
    )
    colours = [_BEST if label == best else _BASELINE if label in table.baselines else _ENCODER for label in labels]
    places = range(len(labels))
    axes.barh(places, means, xerr=(below, above), color=colours, error_kw={"elinewidth": 1, "capsize": 2})
    for place, value, mean, over in zip(places, values, means, above, strict=True):
        text = "–" if value.mean is None else f"{mean:.3g}"
        axes.annotate(
            text,
            (mean if math.isnan(over) else mean + over, place),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
        )
    axes.set_yticks(places, labels, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.16)
    named = heading(metric)
    axes.set_title(f"{title}\n{named}" if title else named, fontsize=8, loc="left")
    axes.tick_params(axis="x", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
