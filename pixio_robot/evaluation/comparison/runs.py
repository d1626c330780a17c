"""Finished runs of train_policy side by side: success with intervals, a paired test, and the cost."""

import json
import logging
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich import box
from rich.table import Table
from rich.text import Text

from pixio_robot.common.documents import read_yaml
from pixio_robot.common.errors import UserError, printable
from pixio_robot.common.json_lines import read_lines, seconds_of_phases
from pixio_robot.common.statistics import paired_p_value, wilson_interval
from pixio_robot.evaluation.record import EvaluationRecord
from pixio_robot.reports.charts import save_figure, whiskers

logger = logging.getLogger(__name__)

_EVALUATION = Path("evaluation", "evaluation.json")
# The label says these in words, or they change nothing about what is compared.
_UNNAMED = ("seed", "output_root", "policy.type", "encoder.name", "encoder.weights", "encoder.mode")
_UNNAMED_GROUPS = ("evaluation.",)


@dataclass(frozen=True)
class Run:
    """One finished run."""

    folder: Path
    config: Mapping[str, Any]
    """Its config.yaml with flat keys, such as `encoder.name`."""
    record: EvaluationRecord
    trainable_parameters: int | None
    """None for runs of versions that did not note it."""
    minutes: float
    """Wall time of encoding frames and training, in all processes of a resumed run."""

    @property
    def successes(self) -> dict[tuple[int, int], bool]:
        """Outcome of each episode by seed of training and seed of the episode."""
        return {(self.config["seed"], episode.seed): episode.success for episode in self.record.episodes}


@dataclass(frozen=True)
class Row:
    """Runs that differ in nothing but the seed of training."""

    label: str
    runs: int
    successes: int
    episodes: int
    ci95: tuple[float, float]
    p_against_first: float | None
    """None for the first row, and where the environments differ or no episode is shared."""
    shared_episodes: int
    """Episodes of the same seeds as the first row's, on which the test rests."""
    trainable_parameters: int | None
    minutes: float
    """Mean of the runs."""


def find_runs(places: Sequence[Path]) -> list[Run]:
    """Read the finished runs among run folders and folders of run folders, in order of their names.

    One whose files are damaged is named, and left out.

    Raises:
        UserError: A place is missing or holds no finished run, or a run's files cannot be read.
    """
    folders: dict[Path, None] = {}
    for place in places:
        configs = [place / "config.yaml"] if (place / "config.yaml").is_file() else sorted(place.glob("**/config.yaml"))
        finished = [config.parent for config in configs if (config.parent / _EVALUATION).is_file()]
        if not finished:
            raise UserError(
                f"{place} holds no finished run of train_policy.py (config.yaml and {_EVALUATION}): give run folders, or a "
                f"folder of them such as outputs/train_policy."
            )
        folders.update(dict.fromkeys(finished))
    runs: list[Run] = []
    damaged: list[UserError] = []
    for folder in folders:
        try:
            runs.append(_read_run(folder))
        except UserError as error:
            damaged.append(error)
    if not runs:
        raise damaged[0]
    for error in damaged:
        logger.warning("left out: %s", printable(str(error)))
    return runs


def _read_run(folder: Path) -> Run:
    config = read_yaml(folder / "config.yaml")
    known = isinstance(config, dict) and all(isinstance(config.get(group), dict) for group in ("encoder", "policy"))
    if not known or type(config.get("seed")) is not int or not _has_texts_for_keys(config):
        raise UserError(f"{folder / 'config.yaml'} is not the config of a run of train_policy.py: leave {folder} out.")
    log = read_lines(folder / "log.jsonl")
    trainable = [entry["trainable_parameters"] for entry in log if "trainable_parameters" in entry]
    seconds = seconds_of_phases(log)
    return Run(
        folder,
        flat_config(config),
        EvaluationRecord.load(folder / _EVALUATION),
        trainable[-1] if trainable else None,
        (seconds.get("features", 0.0) + seconds.get("training", 0.0)) / 60,
    )


def compare_runs(runs: Sequence[Run]) -> list[Row]:
    """Pool runs that differ only in the seed of training, and compare each row with the first.

    Pairs are episodes with the same seed of training and the same seed of evaluation.

    Raises:
        UserError: Two runs are the same run twice: same config, same seed.
    """
    groups: dict[str, list[Run]] = {}
    labels = _labels(runs)
    for run, label in zip(runs, labels, strict=True):
        groups.setdefault(label, []).append(run)
    for label, members in groups.items():
        seeds = [run.config["seed"] for run in members]
        if len(set(seeds)) != len(seeds):
            raise UserError(
                f"{label!r} has {len(seeds)} runs of the seeds {sorted(set(seeds))}: give each run once, by naming the "
                f"run folders (runs=[…])."
            )
    first = next(iter(groups.values()))
    return [_row(label, members, None if members is first else first) for label, members in groups.items()]


def _row(label: str, runs: Sequence[Run], reference: Sequence[Run] | None) -> Row:
    outcomes = [episode.success for run in runs for episode in run.record.episodes]
    shared: list[tuple[bool, bool]] = []
    if reference is not None and all(run.record.env == reference[0].record.env for run in [*runs, *reference]):
        theirs = {key: success for run in reference for key, success in run.successes.items()}
        ours = {key: success for run in runs for key, success in run.successes.items()}
        shared = [(theirs[key], ours[key]) for key in theirs if key in ours]
    return Row(
        label,
        len(runs),
        sum(outcomes),
        len(outcomes),
        wilson_interval(sum(outcomes), len(outcomes)),
        paired_p_value(*zip(*shared, strict=True)) if shared else None,
        len(shared),
        runs[0].trainable_parameters,
        statistics.mean(run.minutes for run in runs),
    )


def _labels(runs: Sequence[Run]) -> list[str]:
    """Name policy and encoder, and whatever else differs between the runs."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    named = [key for key in keys if key not in _UNNAMED and not key.startswith(_UNNAMED_GROUPS)]
    labels = []
    for run in runs:
        name, weights, mode = (run.config.get(f"encoder.{field}") for field in ("name", "weights", "mode"))
        label = f"{str(run.config.get('policy.type')).removeprefix('pixio_')} on "
        label += f"random-init {name}" if weights == "random" else str(name)
        if weights not in ("random", "pretrained"):
            label += f" ({Path(str(weights)).name})"
        label += f", {mode}" if mode != "frozen" else ""
        extra = [f"{key}={run.config[key]}" for key in named if key in run.config and _differs(key, run, runs)]
        labels.append(", ".join([label, *extra]))
    return labels


def _differs(key: str, run: Run, runs: Sequence[Run]) -> bool:
    """Whether a key differs between runs; fields of the policy are compared among policies of its type."""
    same_type = [other for other in runs if other.config.get("policy.type") == run.config.get("policy.type")]
    others = same_type if key.startswith("policy.") else runs
    return len({json.dumps(other.config.get(key), default=str) for other in others}) > 1


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


def _texts(rows: Sequence[Row]) -> list[list[str]]:
    lines = [["run", "seeds", "success", "95 % int.", "paired p", "trainable", "min"]]
    for row in rows:
        trainable = "–" if row.trainable_parameters is None else f"{row.trainable_parameters / 1e6:.2f} M"
        p_value = "–" if row.p_against_first is None else f"{row.p_against_first:.3f} ({row.shared_episodes})"
        low, high = (100 * end for end in row.ci95)
        success = f"{100 * row.successes / row.episodes:.0f} % ({row.successes}/{row.episodes})"
        interval = f"{low:.0f}–{high:.0f} %"
        lines.append([row.label, str(row.runs), success, interval, p_value, trainable, f"{row.minutes:.1f}"])
    return lines


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the rows as plain values."""
    return [asdict(row) for row in rows]


def save_comparison_picture(rows: Sequence[Row], file: Path) -> None:
    """Draw success bars as PNG; whiskers are 95 % Wilson intervals, random-init rows are grey."""
    figure = Figure(figsize=(8, 0.9 + 0.45 * len(rows)), layout="constrained")
    axes = figure.subplots()
    cells = [asdict(row) for row in rows]
    rates, errors = whiskers(cells)
    colours = ["0.7" if "random-init" in row.label else "C0" for row in rows]
    axes.barh(range(len(rows)), rates, xerr=errors, capsize=2, color=colours)
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.02)
    axes.set_xlabel("success rate")
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, file)


def _has_texts_for_keys(config: object) -> bool:
    if isinstance(config, Mapping):
        return all(isinstance(key, str) and _has_texts_for_keys(value) for key, value in config.items())
    return True


def flat_config(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested config with dotted keys, such as `encoder.name`."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flat_config(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
