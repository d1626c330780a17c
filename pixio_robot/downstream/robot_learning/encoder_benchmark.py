"""Encoders compared by the policies that stand on them: few and many demonstrations, nominal and perturbed looks.

Every cell of the table is one policy trained by `run_policy_job` and rolled out on the same evaluation seeds under
every perturbation of the environment, so that two encoders are compared episode by episode.
"""

import dataclasses
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.common.files import write_json, write_text
from pixio_robot.common.statistics import paired_p_value, wilson_interval
from pixio_robot.common.versions import software_versions
from pixio_robot.encoders import EncoderConfig
from pixio_robot.environments import env_config_from
from pixio_robot.evaluation.comparison.runs import flat_config
from pixio_robot.evaluation.record import EvaluationRecord
from pixio_robot.evaluation.rollouts.evaluate import evaluate_policy
from pixio_robot.reports.charts import save_robustness_picture
from pixio_robot.training.job import PolicyJob, run_policy_job

NOMINAL = "none"
_JOB = "job.yaml"
# What may differ from a cell that is kept: it changes no result.
_FREE = (
    "output_root",
    "demos.workers",
    "evaluation.workers",
    "evaluation.videos",
    "trainer.log_every",
    "trainer.wandb",
)


@dataclass(frozen=True)
class BenchmarkPlan:
    """What is compared.

    Attributes:
        encoders: Rows of the table: a label and the encoder that the policy stands on.
        demonstrations: Numbers of demonstrations to train from, the first of one store.
        perturbations: Values of the environment's `perturbation`; `none` is always measured.
        seeds: Seeds of training; evaluation seeds are the job's, the same for all.
        job: Policy, environment, trainer and evaluation that all cells share.
        folder: Results; cells that are there already are kept, so an interrupted benchmark goes on. Each has the job
            that it was measured with beside it.
    """

    encoders: Mapping[str, EncoderConfig]
    demonstrations: Sequence[int]
    perturbations: Sequence[str]
    seeds: Sequence[int]
    job: PolicyJob
    folder: Path

    @property
    def conditions(self) -> list[str]:
        """Nominal first, then the perturbations."""
        return [NOMINAL, *(name for name in self.perturbations if name != NOMINAL)]

    def cells(self) -> Iterator[tuple[str, int, int]]:
        """Yield (label, demonstrations, seed), all encoders of a setting before the next setting."""
        for count in self.demonstrations:
            for seed in self.seeds:
                for label in self.encoders:
                    yield label, count, seed

    def cell_job(self, label: str, count: int, seed: int) -> PolicyJob:
        """Return the run whose policy a cell measures."""
        demos = dataclasses.replace(self.job.demos, episodes=count)
        return dataclasses.replace(self.job, encoder=self.encoders[label], demos=demos, seed=seed)

    def file(self, label: str, count: int, seed: int, condition: str) -> Path:
        """Where the evaluation of a cell under a condition is kept."""
        return self.folder / label / f"{count}_demonstrations" / f"seed_{seed}" / f"{condition}.json"


def benchmark_encoders(plan: BenchmarkPlan, console: Console) -> dict[str, Any]:
    """Train and evaluate every cell that is missing, and summarise them all.

    Returns:
        What `results.json` in the plan's folder holds: one row for each encoder and number of demonstrations.

    Raises:
        UserError: A name is unknown, a kept cell was measured with other settings, or anything that a policy run refuses.
    """
    if not plan.encoders or not plan.demonstrations or not plan.seeds:
        raise UserError("Nothing to compare: give at least one encoder, one number of demonstrations and one seed.")
    if not plan.job.evaluation.episodes:
        raise UserError("This benchmark compares success rates: set evaluation.episodes above 0.")
    for condition in plan.conditions:  # a misspelt name must not cost a training
        env_config_from({**plan.job.env, "perturbation": condition})
    for cell in plan.cells():
        _check_kept(plan, *cell)
    for cell in plan.cells():
        _run_cell(plan, *cell, console)
    results = summarise(plan)
    write_json(plan.folder / "results.json", results)
    write_text(plan.folder / "results.md", as_markdown(results))
    save_robustness_picture(results, plan.folder / "results.png")
    return results


def _check_kept(plan: BenchmarkPlan, label: str, count: int, seed: int) -> None:
    """Refuse a table in which cells of other settings would stand beside new ones, unnoticed."""
    nominal_file = plan.file(label, count, seed, NOMINAL)
    if not nominal_file.exists():
        return
    remedy = "give another output=…, or remove that folder to have it measured again."
    job_file = nominal_file.with_name(_JOB)
    if not job_file.exists():
        raise UserError(f"{nominal_file.parent} does not say with which settings it was measured: {remedy}")
    kept = flat_config(yaml.safe_load(job_file.read_text()))
    wanted = flat_config(dataclasses.asdict(plan.cell_job(label, count, seed)))
    for name in sorted((kept.keys() | wanted.keys()) - set(_FREE)):
        before, now = (config.get(name, "not there") for config in (kept, wanted))
        if json.dumps(before) != json.dumps(now):  # YAML makes lists of tuples
            raise UserError(f"{nominal_file.parent} was measured with {name}={before}, and now it is {now}: {remedy}")


def _run_cell(plan: BenchmarkPlan, label: str, count: int, seed: int, console: Console) -> None:
    nominal_file = plan.file(label, count, seed, NOMINAL)
    if nominal_file.exists():
        nominal = EvaluationRecord.load(nominal_file)
    else:
        console.rule(f"{label}, {count} demonstrations, seed {seed}", align="left", style="dim")
        job = plan.cell_job(label, count, seed)
        nominal = run_policy_job(job, console=console)
        assert nominal is not None  # there are episodes to evaluate
        job.save(nominal_file.with_name(_JOB))
        nominal.save(nominal_file)
    for condition in plan.conditions[1:]:
        file = plan.file(label, count, seed, condition)
        if file.exists():
            continue
        record = evaluate_policy(
            Path(nominal.checkpoint),
            env_config_from({**plan.job.env, "perturbation": condition}),
            [episode.seed for episode in nominal.episodes],
            workers=plan.job.evaluation.workers,
            console=console,
        )
        record.save(file)
        console.print(f"{condition}: {record.summary()}", highlight=False)


def summarise(plan: BenchmarkPlan) -> dict[str, Any]:
    """Count successes per cell and compare every encoder with the first, episode by episode."""
    rows = []
    reference = next(iter(plan.encoders))
    for count in plan.demonstrations:
        for label in plan.encoders:
            row: dict[str, Any] = {"encoder": label, "demonstrations": count, "conditions": {}}
            for condition in plan.conditions:
                successes = _successes(plan, label, count, plan.seeds, condition)
                low, high = wilson_interval(sum(successes), len(successes))
                row["conditions"][condition] = {
                    "successes": sum(successes),
                    "episodes": len(successes),
                    "ci95": [low, high],
                }
                if label != reference:
                    other = _successes(plan, reference, count, plan.seeds, condition)
                    row["conditions"][condition]["p_against_first"] = paired_p_value(other, successes)
            by_seed = [_mean_perturbed(plan, label, count, seed) for seed in plan.seeds] if plan.conditions[1:] else []
            row["mean_perturbed"] = statistics.mean(by_seed) if by_seed else None
            row["mean_perturbed_by_seed"] = by_seed
            rows.append(row)
    return {
        "rows": rows,
        "encoders": {label: dataclasses.asdict(encoder) for label, encoder in plan.encoders.items()},
        "seeds": list(plan.seeds),
        "trainer": dataclasses.asdict(plan.job.trainer),
        "policy": plan.job.policy,
        "env": plan.job.env,
        "versions": software_versions(),
    }


def _successes(plan: BenchmarkPlan, label: str, count: int, seeds: Sequence[int], condition: str) -> list[bool]:
    records = [EvaluationRecord.load(plan.file(label, count, seed, condition)) for seed in seeds]
    return [episode.success for record in records for episode in record.episodes]


def _mean_perturbed(plan: BenchmarkPlan, label: str, count: int, seed: int) -> float:
    rates = [statistics.mean(_successes(plan, label, count, [seed], condition)) for condition in plan.conditions[1:]]
    return statistics.mean(rates)


def _rate(row: Mapping[str, Any], condition: str) -> float:
    cell = row["conditions"][condition]
    return cell["successes"] / cell["episodes"]


def as_table(results: Mapping[str, Any]) -> Table:
    """Lay the results out for a terminal: per cent of episodes that succeeded."""
    table = Table("encoder", "demonstrations", *_headings(results), title="success, % of episodes")
    for row in results["rows"]:
        table.add_row(*_texts(row))
    return table


def as_markdown(results: Mapping[str, Any]) -> str:
    """Write the same table in Markdown."""
    headings = ["encoder", "demonstrations", *_headings(results)]
    lines = [headings, ["---"] * len(headings), *(_texts(row) for row in results["rows"])]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _headings(results: Mapping[str, Any]) -> list[str]:
    conditions = list(results["rows"][0]["conditions"])
    mean = "mean perturbed (seeds)" if len(results["seeds"]) > 1 else "mean perturbed"
    return ["nominal", *(name.replace("_", " ") for name in conditions[1:]), mean]


def _texts(row: Mapping[str, Any]) -> list[str]:
    rates = [f"{100 * _rate(row, condition):.0f}" for condition in row["conditions"]]
    mean = "–" if row["mean_perturbed"] is None else f"{100 * row['mean_perturbed']:.0f}"
    if len(row["mean_perturbed_by_seed"]) > 1:
        mean += f" ({', '.join(f'{100 * rate:.0f}' for rate in row['mean_perturbed_by_seed'])})"
    return [row["encoder"], str(row["demonstrations"]), *rates, mean]


def encoders_from(descriptions: Mapping[str, Mapping[str, Any]]) -> dict[str, EncoderConfig]:
    """Read the rows of the table from plain values, as a YAML file holds them.

    Raises:
        UserError: A field is unknown.
    """
    known = [field.name for field in dataclasses.fields(EncoderConfig)]
    for label, fields in descriptions.items():
        for name in fields:
            if name not in known:
                raise UserError(f"Encoder {label!r} has an unknown field {name!r}. {nearest_name(name, known)}")
    return {label: EncoderConfig(**fields) for label, fields in descriptions.items()}
