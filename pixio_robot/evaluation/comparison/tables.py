"""A comparison of runs for people: on the terminal, in Markdown, CSV and LaTeX, and as a figure."""

import csv
import io
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from matplotlib.figure import Figure
from rich import box
from rich.table import Table
from rich.text import Text

from pixio_robot.common.errors import printable
from pixio_robot.common.storage.files import write_json, write_text
from pixio_robot.evaluation.comparison.runs import HELD_OUT, SUCCESS, Row
from pixio_robot.reports.charts import save_figure

_LATEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "–": "--", "$": r"\$"}
_LABEL_WIDTH = 56  # characters of a line in the figure


def save_comparison(rows: Sequence[Row], folder: Path) -> None:
    """Write `comparison` as JSON, Markdown, CSV and LaTeX, and its figure as PNG and PDF."""
    write_json(folder / "comparison.json", [asdict(row) for row in rows])
    write_text(folder / "comparison.md", as_markdown(rows))
    write_text(folder / "comparison.csv", as_csv(rows))
    write_text(folder / "comparison.tex", as_latex(rows))
    figure = picture(rows)
    for suffix in ("png", "pdf"):
        save_figure(figure, folder / f"comparison.{suffix}")


def as_table(rows: Sequence[Row]) -> Table:
    """Lay the comparison out for a terminal."""
    headings, *lines = _texts(rows)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in headings:  # the label wraps, numbers do not: 80 columns are enough
        table.add_column(heading, no_wrap=heading != headings[0], overflow="fold")
    for line in lines:
        table.add_row(*(Text(printable(cell)) for cell in line))
    return table


def as_markdown(rows: Sequence[Row]) -> str:
    """Write the same table in Markdown."""
    headings, *lines = _texts(rows)
    return "".join(f"| {' | '.join(line)} |\n" for line in [headings, ["---"] * len(headings), *lines])


def as_latex(rows: Sequence[Row]) -> str:
    """Write the same table for a paper, as a `tabular` that needs the package booktabs."""
    lines = [[_escaped(cell) for cell in line] for line in _texts(rows)]
    headings, *body = (" & ".join(line) + r" \\" for line in lines)
    columns = "l" + "r" * (len(lines[0]) - 1)
    begin, end = rf"\begin{{tabular}}{{{columns}}}", r"\end{tabular}"
    return "\n".join([begin, r"\toprule", headings, r"\midrule", *body, r"\bottomrule", end, ""])


def _escaped(cell: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in cell)


def as_csv(rows: Sequence[Row]) -> str:
    """Write every number in full."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = [field.name for field in fields(Row) if field.name != "ci95"]
    writer.writerow([*names, "ci95_low", "ci95_high"])
    for row in rows:
        writer.writerow([*(getattr(row, name) for name in names), *row.ci95])
    return file.getvalue()


def _texts(rows: Sequence[Row]) -> list[list[str]]:
    lines = [["run", "seeds", _heading(rows), "95 % int.", "paired p", "trainable", "min"]]
    for row in rows:
        trainable = "–" if row.trainable_parameters is None else f"{row.trainable_parameters / 1e6:.2f} M"
        p_value = "–" if row.p_against_first is None else f"{row.p_against_first:.3f} ({row.shared_episodes})"
        low, high = (100 * end for end in row.ci95)
        interval = f"{low:.0f}–{high:.0f} %"
        lines.append([row.label, str(row.runs), _result(row), interval, p_value, trainable, f"{row.minutes:.1f}"])
    return lines


def _heading(rows: Sequence[Row]) -> str:
    return ", ".join(dict.fromkeys(row.measure for row in rows))


def _result(row: Row) -> str:
    if row.measure == SUCCESS:
        return f"{100 * row.mean:.0f} % ({round(row.mean * row.episodes)}/{row.episodes})"
    return f"{100 * row.mean:.0f} % (n = {row.episodes})"


def picture(rows: Sequence[Row]) -> Figure:
    """Draw a bar for each row, each measure in a panel of its own; whiskers are 95 % intervals, random-init rows grey."""
    measures = {name: [row for row in rows if row.measure == name] for name in (SUCCESS, HELD_OUT)}
    measures = {name: found for name, found in measures.items() if found}
    labels = {row.label: "\n".join(textwrap.wrap(row.label, _LABEL_WIDTH)) for row in rows}
    heights = [
        0.7 + sum(0.14 + 0.17 * (1 + labels[row.label].count("\n")) for row in found) for found in measures.values()
    ]
    figure = Figure(figsize=(9, sum(heights)), layout="constrained")
    panels = figure.subplots(len(measures), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (name, found) in zip(panels, measures.items(), strict=True):
        means = [100 * row.mean for row in found]
        below = [mean - 100 * row.ci95[0] for mean, row in zip(means, found, strict=True)]
        above = [100 * row.ci95[1] - mean for mean, row in zip(means, found, strict=True)]
        colours = ["0.7" if "random-init" in row.label else "C0" for row in found]
        places = range(len(found))
        axes.barh(places, means, xerr=(below, above), capsize=2, color=colours, height=0.7, error_kw={"linewidth": 0.9})
        axes.plot(means, places, "o", color="black", markersize=3)  # a bar of 0 % has no length
        axes.set_yticks(places, [labels[row.label] for row in found], fontsize=8)
        axes.set_ylim(len(found) - 0.5, -0.5)
        edge = 100.0 if name == SUCCESS else max(100 * row.ci95[1] for row in found)
        for place, row in zip(places, found, strict=True):
            axes.text(1.03 * edge, place, _result(row), fontsize=8, va="center")
        axes.set_xlim(-0.01 * edge, 1.22 * edge)
        axes.set_xlabel("success, %" if name == SUCCESS else "error on held-out episodes, % of the actions' deviation")
        axes.spines[["top", "right"]].set_visible(False)
    return figure
