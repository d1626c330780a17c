"""One policy as it was trained and under changes of how the task looks: nominal against perturbed success."""

import dataclasses
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lerobot.envs import EnvConfig
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table

from pixio_robot.common.errors import UserError
from pixio_robot.common.statistics import paired_p_value
from pixio_robot.evaluation.record import EvaluationRecord
from pixio_robot.evaluation.rollouts.evaluate import evaluate_policy
from pixio_robot.evaluation.rollouts.tries import with_videos_to_show
from pixio_robot.reports.charts import save_figure, whiskers

NOMINAL = "none"


@dataclass(frozen=True)
class Condition:
    """A policy's success under one perturbation.

    Attributes:
        perturbation: Its name; `NOMINAL` for the task as it is.
        record: Everything about the rollouts.
        lost: Episodes that succeed nominally and fail here.
        won: Episodes that fail nominally and succeed here.
        p_against_nominal: Exact McNemar test of `lost` against `won`, two-sided; None for the nominal row.
    """

    perturbation: str
    record: EvaluationRecord
    lost: int = 0
    won: int = 0
    p_against_nominal: float | None = None


def perturbed_configs(env_config: EnvConfig, perturbations: Sequence[str]) -> dict[str, EnvConfig]:
    """Return the environment under each perturbation, by name, the nominal one first whether or not it is asked for.

    Raises:
        UserError: The environment knows no perturbations, or not one of these; or one comes twice.
    """
    if not hasattr(env_config, "perturbation"):
        raise UserError(f"The environment {env_config.type!r} has no perturbations: leave perturbations=… out.")
    if getattr(env_config, "perturbation", None) != NOMINAL:
        raise UserError("env.perturbation and perturbations are both given: leave one of them out.")
    names = [name for name in perturbations if name != NOMINAL]
    if not names or len(set(names)) != len(names):
        raise UserError("perturbations has to name at least one perturbation, and each of them once.")
    configs: dict[str, EnvConfig] = {}
    for name in [NOMINAL, *names]:
        try:
            configs[name] = dataclasses.replace(env_config, perturbation=name)  # pyright: ignore[reportCallIssue]
        except ValueError as error:
            raise UserError(str(error)) from error
    return configs


def evaluate_under_perturbations(
    checkpoint: Path,
    configs: dict[str, EnvConfig],
    seeds: Sequence[int],
    run_dir: Path,
    *,
    n_videos: int = 0,
    console: Console | None = None,
    **rollouts: Any,  # noqa: ANN401
) -> list[Condition]:
    """Roll a policy out on the same seeds under every perturbation, and compare each with the nominal task.

    An episode starts the same in every condition: what differs is how it looks.

    Args:
        checkpoint: A `pretrained_model` folder.
        configs: Environments by perturbation, as `perturbed_configs` gives them; or the one to measure, as `NOMINAL`.
        seeds: One episode each, in every condition.
        run_dir: Gets every record as soon as it is complete: `evaluation/evaluation.json` for the nominal task,
            `perturbations/<name>.json` for the others; and the videos of the nominal task.
        n_videos: At most so many videos, see `evaluate_policy`.
        console: Where progress is shown.
        **rollouts: Further arguments of `evaluate_policy`.

    Raises:
        UserError: As `evaluate_policy`; or a perturbation has nothing to change in this task.
    """
    console = console or Console()
    conditions: list[Condition] = []
    for name, env_config in configs.items():
        if len(configs) > 1:
            console.rule(_label(name), align="left", style="dim")
        is_nominal = name == NOMINAL
        record = evaluate_policy(
            checkpoint,
            env_config,
            seeds,
            videos_dir=run_dir / "evaluation" / "videos" if is_nominal else None,
            n_videos=n_videos if is_nominal else 0,
            console=console,
            **rollouts,
        )
        record.save(run_dir / _record_file(name))
        conditions.append(_compared(name, record, conditions[0].record if conditions else None))
    return conditions


def conditions_of_parts(
    folders: Sequence[Path], names: Collection[str], run_dir: Path, n_videos: int
) -> list[Condition]:
    """Join what `evaluate_under_perturbations` left in several folders, of slices of the seeds, and leave the same in one.

    Args:
        folders: In the order of their seeds.
        names: Of the conditions, the nominal one first.
        run_dir: Gets the records and the videos.
        n_videos: As it was for each folder.

    Raises:
        UserError: A record is not there, or damaged.
    """
    conditions: list[Condition] = []
    for name in names:
        records = [EvaluationRecord.load(folder / _record_file(name)) for folder in folders]
        record = EvaluationRecord.of_parts(records)
        if name == NOMINAL:
            record = dataclasses.replace(record, episodes=with_videos_to_show(record.episodes, n_videos))
            homes = {one.seed: folder for folder, part in zip(folders, records, strict=True) for one in part.episodes}
            place = _record_file(name).parent
            for episode in record.episodes:
                if episode.video is not None:
                    (run_dir / place / episode.video).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(homes[episode.seed] / place / episode.video, run_dir / place / episode.video)
        record.save(run_dir / _record_file(name))
        conditions.append(_compared(name, record, conditions[0].record if conditions else None))
    return conditions


def _record_file(name: str) -> Path:
    return Path("evaluation/evaluation.json" if name == NOMINAL else f"perturbations/{name}.json")


def _compared(name: str, record: EvaluationRecord, nominal: EvaluationRecord | None) -> Condition:
    if nominal is None:
        return Condition(name, record)
    assert [episode.seed for episode in record.episodes] == [episode.seed for episode in nominal.episodes]
    before = [episode.success for episode in nominal.episodes]
    now = [episode.success for episode in record.episodes]
    lost = sum(then and not here for then, here in zip(before, now, strict=True))
    won = sum(here and not then for then, here in zip(before, now, strict=True))
    return Condition(name, record, lost, won, paired_p_value(before, now))


def as_table(conditions: Sequence[Condition]) -> Table:
    """Lay the comparison out for a terminal."""
    table = Table(
        "perturbation", "success", "95 % int.", "lost", "won", "paired p", box=box.SIMPLE_HEAD, pad_edge=False,
        caption="lost, won: episodes, against the same seeds unperturbed; p: exact McNemar test, each row by itself",
        caption_justify="left",
    )  # fmt: skip
    for row in conditions:
        low, high = (100 * end for end in row.record.ci95)
        success = f"{100 * row.record.success_rate:.0f} % ({row.record.n_successes}/{row.record.n_episodes})"
        against = ["–"] * 3
        if row.p_against_nominal is not None:
            against = [str(row.lost), str(row.won), f"{row.p_against_nominal:.2g}"]
        table.add_row(_label(row.perturbation), success, f"{low:.0f}–{high:.0f} %", *against)
    return table


def as_json(conditions: Sequence[Condition]) -> list[dict[str, Any]]:
    """Return the rows as plain values."""
    return [
        {
            "perturbation": row.perturbation,
            "successes": row.record.n_successes,
            "episodes": row.record.n_episodes,
            "ci95": list(row.record.ci95),
            "lost": row.lost,
            "won": row.won,
            "p_against_nominal": row.p_against_nominal,
            "versions": row.record.versions,
        }
        for row in conditions
    ]


def save_picture(conditions: Sequence[Condition], file: Path) -> None:
    """Draw success bars as PNG; whiskers are 95 % Wilson intervals, the line is the nominal success rate."""
    figure = Figure(figsize=(1.6 + 1.1 * len(conditions), 3.2), layout="constrained")
    axes = figure.subplots()
    rates, errors = whiskers(as_json(conditions))
    colours = ["0.6" if row.perturbation == NOMINAL else "C0" for row in conditions]
    axes.bar(range(len(conditions)), rates, 0.7, yerr=errors, capsize=3, color=colours)
    axes.axhline(rates[0], color="0.6", linewidth=1, linestyle="--", zorder=0)
    for place, row in enumerate(conditions):
        count = f"{row.record.n_successes}/{row.record.n_episodes}"
        colour = "white" if rates[place] > 0.1 else "black"  # beside a bar as low as the text
        axes.text(place, 0.02, count, ha="center", va="bottom", fontsize=8, color=colour)
    axes.set_xticks(range(len(conditions)), [_label(row.perturbation).replace(" ", "\n") for row in conditions])
    axes.set_ylim(0, 1.05)
    axes.set_ylabel("success rate")
    axes.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, file)


def _label(perturbation: str) -> str:
    return "nominal" if perturbation == NOMINAL else perturbation.replace("_", " ")
