"""Success bars with intervals: encoders side by side, one panel for each number of demonstrations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pixio_robot.reports.figures import save_figure


def save_robustness_picture(results: Mapping[str, Any], file: Path) -> None:
    """Draw the results of `benchmark_encoders` as PNG; whiskers are 95 % Wilson intervals."""
    counts = sorted({row["demonstrations"] for row in results["rows"]})
    figure = Figure(figsize=(9, 2.6 * len(counts)), layout="constrained")
    panels = figure.subplots(len(counts), 1, squeeze=False)[:, 0]
    for count, axes in zip(counts, panels, strict=True):
        rows = [row for row in results["rows"] if row["demonstrations"] == count]
        conditions = list(rows[0]["conditions"])
        width = 0.8 / len(rows)
        for index, row in enumerate(rows):
            cells = [row["conditions"][condition] for condition in conditions]
            rates, errors = whiskers(cells)
            places = [place + (index - (len(rows) - 1) / 2) * width for place in range(len(conditions))]
            axes.bar(places, rates, width * 0.92, yerr=errors, capsize=2, label=row["encoder"])
        names = ["nominal", *(name.replace("_", " ") for name in conditions[1:])]
        axes.set_xticks(range(len(conditions)), names)
        axes.set_ylim(0, 1.05)
        axes.set_ylabel("success rate")
        axes.set_title(f"{count} demonstrations", loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(ncols=4, fontsize=8, loc="upper right", bbox_to_anchor=(1, 1.25), frameon=False)
    save_figure(figure, file)


def whiskers(cells: Sequence[Mapping[str, Any]]) -> tuple[list[float], tuple[list[float], list[float]]]:
    """Return success rates, and how far their intervals reach below and above, of cells of a table."""
    rates = [cell["successes"] / cell["episodes"] for cell in cells]
    below = [rate - cell["ci95"][0] for rate, cell in zip(rates, cells, strict=True)]
    above = [cell["ci95"][1] - rate for rate, cell in zip(rates, cells, strict=True)]
    return rates, (below, above)
