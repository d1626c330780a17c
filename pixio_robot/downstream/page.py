"""The page of a comparison: a chart and a table for each task, and pictures of what each encoder made of the same images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pixio_robot.downstream.figures import chart
from pixio_robot.downstream.results import TaskTable, heading, shown
from pixio_robot.reports.page import data_url, render, source


@dataclass(frozen=True)
class _Picture:
    label: str
    caption: str
    source: str


@dataclass(frozen=True)
class _File:
    label: str
    name: str
    path: str


@dataclass(frozen=True)
class _Task:
    title: str
    chart: str
    headings: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]
    pictures: Sequence[_Picture]
    files: Sequence[_File]


def write_page(found: Sequence[TaskTable], ranks: Mapping[str, float], output: Path) -> Path:
    """Write `report.html`; nothing on it comes from the network.

    Args:
        found: Tables.
        ranks: Mean rank over tasks, by label.
        output: Folder of the comparison.
    """
    page = output / "report.html"
    order = sorted(ranks.items(), key=lambda pair: pair[1])
    render("comparison.html.j2", page, tasks=[_task(table, output) for table in found], ranks=order)
    return page


def _task(table: TaskTable, output: Path) -> _Task:
    pictures, files = [], []
    for label, cell in table.cells.items():
        pictures += [
            _Picture(label, caption, source(cell.folder / name, output, "image/png"))
            for caption, name in cell.result.pictures.items()
        ]
        files += [
            _File(label, what, str((cell.folder / name).relative_to(output)))
            for what, name in cell.result.files.items()
        ]
    return _Task(
        table.title,
        data_url(chart(table), "image/png"),
        [heading(metric) for metric in table.metrics],
        [(label, [shown(row[metric.name], metric) for metric in table.metrics]) for label, row in table.rows.items()],
        pictures,
        files,
    )
