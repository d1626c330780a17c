"""The table of cells: filled once, resumed, extended, and never mixed with cells of other settings."""

import csv
import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.downstream.cells import CELL_FILE, fill
from pixio_robot.downstream.figures import save_figure_for_paper
from pixio_robot.downstream.page import write_page
from pixio_robot.downstream.results import mean_ranks, print_tables, save_results, tables
from pixio_robot.downstream.task import CellResult, DownstreamTask, Metric
from pixio_robot.encoders import EncoderConfig
from pixio_robot.reports.charts import save_picture

TINY, RANDOM = EncoderConfig("pixio_tiny16"), EncoderConfig("pixio_tiny16", "random")
CONSOLE = Console(quiet=True)


@dataclasses.dataclass
class Lengths:
    """Measures how long the word for an encoder's weights is."""

    name: str = "lengths-of-words"
    group: str = "probes"
    title: str = "Lengths of words"
    factor: int = 1
    metrics: Sequence[Metric] = (
        Metric("length", "length", "cm", higher_is_better=True),
        Metric("waste", "waste & more", "%", 100),
    )
    baselines: Sequence[str] = ("guess",)
    measured: list[str] = dataclasses.field(default_factory=list)
    fails_at: str | None = None

    def identity(self) -> dict[str, Any]:
        return {"factor": self.factor}

    def check(self, encoder: EncoderConfig) -> None:
        if encoder.name == "resnet18":
            raise UserError("no resnet here")

    def measure(self, encoder: EncoderConfig | str, folder: Path, console: Console) -> CellResult:
        word = encoder if isinstance(encoder, str) else encoder.weights
        if word == self.fails_at:
            raise KeyboardInterrupt
        self.measured.append(word)
        import numpy as np

        save_picture(np.zeros((4, 4, 3), np.uint8), folder / "black.png")
        length = self.factor * float(len(word))
        values = {"length": [length - 1, length, length + 1], "waste": [math.nan]}
        return CellResult(
            {metric.name: values[metric.name] for metric in self.metrics},
            pictures={"What it saw": "black.png"},
            record={"successes": {"length": [[True] * 6, [word == "random"] * 6]}},
        )


def test_an_interrupted_table_goes_on_and_another_encoder_costs_its_own_cells(tmp_path: Path) -> None:
    task = Lengths(fails_at="random")
    with pytest.raises(KeyboardInterrupt):
        fill([task], {"tiny": TINY, "random": RANDOM}, tmp_path, CONSOLE)
    assert task.measured == ["guess", "pretrained"]
    task.fails_at = None
    fill([task], {"tiny": TINY, "random": RANDOM}, tmp_path, CONSOLE)
    assert task.measured == ["guess", "pretrained", "random"]
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(b"weights")
    mine = EncoderConfig("pixio_tiny16", str(weights))
    cells = fill([task], {"tiny": TINY, "mine": mine}, tmp_path, CONSOLE)
    assert task.measured[3:] == [str(weights)]
    assert [cell.label for cell in cells] == ["guess", "tiny", "mine"]
    weights.write_bytes(b"other weights")  # under the same name: another encoder
    fill([task], {"mine": mine}, tmp_path, CONSOLE)
    assert task.measured[4:] == [str(weights)]


def test_other_settings_are_other_cells_and_a_damaged_cell_is_measured_again(tmp_path: Path) -> None:
    task = Lengths()
    fill([task], {"tiny": TINY}, tmp_path, CONSOLE)
    doubled = fill([Lengths(factor=2)], {"tiny": TINY}, tmp_path, CONSOLE)
    assert doubled[1].result.metrics["length"] == [19.0, 20.0, 21.0]
    (kept,) = [cell for cell in fill([task], {"tiny": TINY}, tmp_path, CONSOLE) if cell.label == "tiny"]
    assert kept.result.metrics["length"] == [9.0, 10.0, 11.0]
    assert math.isnan(kept.result.metrics["waste"][0])
    (kept.folder / CELL_FILE).write_text('{"result": ')
    again = Lengths()
    fill([again], {"tiny": TINY}, tmp_path, CONSOLE)
    assert again.measured == ["pretrained"]


def test_what_does_not_suit_is_found_before_anything_is_measured(tmp_path: Path) -> None:
    task = Lengths()
    with pytest.raises(UserError, match="no resnet"):
        fill([task], {"tiny": TINY, "resnet": EncoderConfig("resnet18", "random")}, tmp_path, CONSOLE)
    with pytest.raises(UserError, match="no weights file"):
        fill([task], {"lost": EncoderConfig("pixio_tiny16", str(tmp_path / "lost.pt"))}, tmp_path, CONSOLE)
    assert task.measured == []


def test_results_are_written_for_machines_papers_and_people(tmp_path: Path) -> None:
    tasks: list[DownstreamTask] = [
        Lengths(),
        Lengths(name="shorter", title="Shorter_words", metrics=[Metric("length", "length")]),
    ]
    encoders = {"tiny": TINY, "a_rather_long_label_of_random_weights_of_fifty_letters": RANDOM}
    found = tables(tasks, fill(tasks, encoders, tmp_path, CONSOLE))
    # 10 against 6 letters: better where longer is better, worse where it is not.
    ranks = mean_ranks(found, list(encoders))
    assert ranks == dict.fromkeys(encoders, 1.5)
    assert mean_ranks(found[:1], list(encoders)) == {"tiny": 1.0, next(reversed(encoders)): 2.0}
    save_results(found, encoders, ranks, tmp_path)
    record = json.loads((tmp_path / "results.json").read_text())
    rows = {row["label"]: row for row in record["tasks"][0]["rows"]}
    assert rows["tiny"]["values"]["length"]["mean"] == 10
    low, high = rows["tiny"]["values"]["length"]["ci95"]
    assert 9 <= low < 10 < high <= 11
    assert rows["tiny"]["values"]["waste"] == {"mean": None, "values": [], "ci95": None}
    other = rows[next(reversed(encoders))]
    assert other["p_against_first"]["length"] == pytest.approx(2 / 2**6)  # six episodes differ, all won by one
    lines = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert [line["mean"] for line in lines if line["encoder"] == "tiny" and line["metric"] == "length"] == ["10", "10"]
    latex = (tmp_path / "results.tex").read_text()
    assert r"waste \& more, \% $\downarrow$" in latex
    assert r"a\_rather\_long\_label" in latex
    assert r"\textbf{10.0" in latex
    save_figure_for_paper(found, tmp_path / "results.pdf")
    assert (tmp_path / "results.pdf").read_bytes().startswith(b"%PDF")
    page = write_page(found, ranks, tmp_path).read_text()
    assert page.count("What it saw") == 2 * 2 * 3
    assert "Shorter_words" in page
    assert "http" not in page.replace("http-equiv", "")
    console = Console(record=True, width=100)
    print_tables(found, ranks, console)
    assert "10.0 ±" in console.export_text()
