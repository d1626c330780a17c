"""What a comparison of encoders found: summarised, ranked, and written for machines, papers and the terminal.

results.json      everything            results.csv      a line per task, encoder and metric
results.tex       a table per task      results.pdf      a figure (`figures`)
report.html       a page (`page`)
"""

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy.stats import rankdata

from pixio_robot.common.statistics import bootstrap_interval, paired_p_value
from pixio_robot.common.storage.files import write_json, write_text
from pixio_robot.common.versions import software_versions
from pixio_robot.downstream.cells import Cell
from pixio_robot.downstream.task import DownstreamTask, Metric
from pixio_robot.encoders import EncoderConfig

_FEWEST = 3  # values without an interval of their own that a bootstrap says something of


@dataclass(frozen=True)
class Value:
    """What a cell has in a column.

    Attributes:
        mean: Over seeds, splits or repetitions; None where there is none.
        values: Each of them.
        ci95: 95 % interval, from the task or a bootstrap; None of fewer than three values.
    """

    mean: float | None
    values: list[float]
    ci95: tuple[float, float] | None


@dataclass(frozen=True)
class TaskTable:
    """One task's table.

    Attributes:
        task: Its name.
        group: The choice that brings it.
        title: For people.
        metrics: Columns.
        rows: By label, by metric.
        cells: By label.
        baselines: Labels of rows without an encoder.
    """

    task: str
    group: str
    title: str
    metrics: Sequence[Metric]
    rows: Mapping[str, Mapping[str, Value]]
    cells: Mapping[str, Cell]
    baselines: Sequence[str]

    def best(self, metric: Metric) -> str | None:
        """Return the label of the best row in a column."""
        means = {label: row[metric.name].mean for label, row in self.rows.items()}
        known = {label: mean for label, mean in means.items() if mean is not None}
        return (max if metric.higher_is_better else min)(known, key=lambda label: known[label]) if known else None


def tables(tasks: Sequence[DownstreamTask], cells: Sequence[Cell]) -> list[TaskTable]:
    """Arrange cells in one table for each task."""
    found = []
    for task in tasks:
        own = {cell.label: cell for cell in cells if cell.task == task.name}
        rows = {
            label: {metric.name: _value(cell, metric.name) for metric in task.metrics} for label, cell in own.items()
        }
        found.append(TaskTable(task.name, task.group, task.title, task.metrics, rows, own, task.baselines))
    return found


def _value(cell: Cell, metric: str) -> Value:
    values = [value for value in cell.result.metrics.get(metric, ()) if math.isfinite(value)]
    if not values:
        return Value(None, [], None)
    given = cell.result.intervals.get(metric)
    interval = (given[0], given[1]) if given is not None else None
    if interval is None and len(values) >= _FEWEST:
        interval = bootstrap_interval([values])
    return Value(statistics.mean(values), values, interval)


def mean_ranks(found: Sequence[TaskTable], labels: Sequence[str]) -> dict[str, float]:
    """Return the mean rank of encoders over the tasks that measured all of them, by each task's first metric; 1 is best."""
    ranks: dict[str, list[float]] = {label: [] for label in labels}
    for table in found:
        metric = table.metrics[0]
        means = [table.rows[label][metric.name].mean for label in labels]
        known = [mean for mean in means if mean is not None]
        if len(known) == len(labels):
            signed = [-mean if metric.higher_is_better else mean for mean in known]
            for label, rank in zip(labels, rankdata(signed), strict=True):
                ranks[label].append(float(rank))
    return {label: statistics.mean(some) for label, some in ranks.items() if some}


def shown(value: Value, metric: Metric, *, short: bool = False) -> str:
    """Write a value times its metric's factor, with its interval, or with half the width of that."""
    if value.mean is None:
        return "–"
    digits = 1 if metric.factor != 1 or metric.unit in ("cm", "°") else 3
    text = f"{metric.factor * value.mean:.{digits}f}"
    if value.ci95 is not None:
        low, high = (metric.factor * end for end in value.ci95)
        text += f" ±{(high - low) / 2:.{digits}f}" if short else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return text


def heading(metric: Metric) -> str:
    """Return a column's heading with unit and direction."""
    unit = f", {metric.unit}" if metric.unit else ""
    return f"{metric.heading}{unit} {'↑' if metric.higher_is_better else '↓'}"


def print_tables(found: Sequence[TaskTable], ranks: Mapping[str, float], console: Console) -> None:
    """Print a table for each task, the best of a column in bold, and the mean ranks."""
    for one in found:
        table = Table(title=one.title, title_justify="left")
        table.add_column("encoder", overflow="fold")
        for metric in one.metrics:
            table.add_column("\n".join(heading(metric).split()), justify="right", no_wrap=True)
        for label, row in one.rows.items():
            texts = [shown(row[metric.name], metric, short=True) for metric in one.metrics]
            bold = [one.best(metric) == label for metric in one.metrics]
            table.add_row(
                label, *(f"[bold]{text}[/bold]" if best else text for text, best in zip(texts, bold, strict=True))
            )
        console.print(table)
    console.print("±: half of the 95 % interval", highlight=False)
    if ranks:
        order = sorted(ranks.items(), key=lambda pair: pair[1])
        console.print("mean rank: " + ", ".join(f"{label} {rank:.2f}" for label, rank in order), highlight=False)


def save_results(
    found: Sequence[TaskTable], encoders: Mapping[str, EncoderConfig], ranks: Mapping[str, float], output: Path
) -> None:
    """Write `results.json`, `results.csv` and `results.tex`."""
    write_json(output / "results.json", _record(found, encoders, ranks))
    write_text(output / "results.csv", _csv(found))
    write_text(output / "results.tex", "\n".join(map(_latex, found)))


def _record(
    found: Sequence[TaskTable], encoders: Mapping[str, EncoderConfig], ranks: Mapping[str, float]
) -> dict[str, Any]:
    return {
        "encoders": {label: asdict(config) for label, config in encoders.items()},
        "mean_rank": dict(ranks),
        "tasks": [
            {
                "task": table.task,
                "title": table.title,
                "metrics": [asdict(metric) for metric in table.metrics],
                "rows": [
                    {
                        "label": label,
                        "values": {name: asdict(value) for name, value in row.items()},
                        "p_against_first": _paired(table, label, next(iter(encoders))),
                        "seconds": round(table.cells[label].seconds, 1),
                        "record": dict(table.cells[label].result.record),
                    }
                    for label, row in table.rows.items()
                ],
            }
            for table in found
        ],
        "versions": software_versions(),
    }


def _paired(table: TaskTable, label: str, first: str) -> dict[str, float] | None:
    """Compare a row with the first encoder's, episode by episode, where a task recorded them."""
    own, other = (
        table.cells[name].result.record.get("successes") if name in table.cells else None for name in (label, first)
    )
    if own is None or other is None or label == first:
        return None
    return {
        condition: paired_p_value(*([*chain.from_iterable(row[condition])] for row in (other, own)))
        for condition in own.keys() & other.keys()
        if [len(one) for one in own[condition]] == [len(one) for one in other[condition]]
    }


def _csv(found: Sequence[TaskTable]) -> str:
    text = io.StringIO()
    lines = csv.writer(text)
    lines.writerow(["task", "encoder", "metric", "unit", "mean", "low", "high", "values"])
    for table in found:
        for label, row in table.rows.items():
            for metric in table.metrics:
                value = row[metric.name]
                numbers = [value.mean, *(value.ci95 or (None, None))]
                scaled = ["" if number is None else f"{metric.factor * number:.6g}" for number in numbers]
                each = " ".join(f"{metric.factor * number:.6g}" for number in value.values)
                lines.writerow([table.task, label, metric.name, metric.unit, *scaled, each])
    return text.getvalue()


_ESCAPES = {letter: f"\\{letter}" for letter in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "δ": r"$\delta$",
    "°": r"$^\circ$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "–": "--",
    "·": r"$\cdot$",
    "₁": "$_1$",
    "²": "$^2$",
}


def latex_text(text: str) -> str:
    """Escape text for LaTeX."""
    return "".join(_ESCAPES.get(letter, letter) for letter in text)


def _latex(table: TaskTable) -> str:
    columns = " & ".join(["encoder", *(latex_text(heading(metric)) for metric in table.metrics)])
    lines = [
        f"% {table.title}",
        rf"\begin{{tabular}}{{l{'r' * len(table.metrics)}}}",
        r"\hline",
        rf"{columns} \\",
        r"\hline",
    ]
    for label, row in table.rows.items():
        texts = []
        for metric in table.metrics:
            text = latex_text(shown(row[metric.name], metric))
            texts.append(rf"\textbf{{{text}}}" if table.best(metric) == label else text)
        lines.append(rf"{' & '.join([latex_text(label), *texts])} \\")
    return "\n".join([*lines, r"\hline", r"\end{tabular}", ""])
