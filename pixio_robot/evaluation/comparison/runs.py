"""Finished runs of train_policy side by side: success or held-out error with intervals, a paired test, and the cost."""

import json
import logging
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixio_robot.common.errors import UserError, printable
from pixio_robot.common.statistics import bootstrap_interval, paired_p_value, paired_sign_flips, wilson_interval
from pixio_robot.common.storage.documents import read_yaml
from pixio_robot.common.storage.json_lines import read_lines, seconds_of_phases
from pixio_robot.engine.run_folder import CONFIG_FILE, find_run
from pixio_robot.evaluation.open_loop import HeldOutRecord
from pixio_robot.evaluation.record import EvaluationRecord

logger = logging.getLogger(__name__)

SUCCESS, HELD_OUT = "success", "held-out error"
_EVALUATION, _HELD_OUT = Path("evaluation", "evaluation.json"), Path("held_out.json")
# The label says these in words, or they change nothing about what is compared.
_UNNAMED = (
    *("seed", "output_root", "policy.type", "encoder.name", "encoder.weights", "encoder.mode", "demos.workers"),
    *("trainer.log_every", "trainer.wandb", "trainer.checkpoint_every", "trainer.cache_features"),
    *("trainer.keep_checkpoints", "trainer.keep_checkpoints_every", "encoder.self_contained"),
)
_UNNAMED_GROUPS = ("evaluation.",)


@dataclass(frozen=True)
class Run:
    """One finished run."""

    folder: Path
    config: Mapping[str, Any]
    """Its config.yaml with flat keys, such as `encoder.name`."""
    record: EvaluationRecord | HeldOutRecord
    """Rollouts, or else the verdict on held-out episodes."""
    trainable_parameters: int | None
    """None for runs of versions that did not note it."""
    minutes: float
    """Wall time of encoding frames and training, in all processes of a resumed run."""

    @property
    def world(self) -> object:
        """What two runs must share for their episodes to be pairs."""
        if isinstance(self.record, EvaluationRecord):
            return self.record.env
        return [self.config.get(f"demos.{key}") for key in ("source", "path", "root", "repo_id")]

    @property
    def outcomes(self) -> dict[tuple[int, int], float]:
        """Success (0 or 1) or error of each episode, by seed of training and seed or number of the episode."""
        seed = self.config["seed"]
        if isinstance(self.record, EvaluationRecord):
            return {(seed, episode.seed): float(episode.success) for episode in self.record.episodes}
        return {
            (seed, number): error for number, error in zip(self.record.episodes, self.record.by_episode, strict=True)
        }


@dataclass(frozen=True)
class Row:
    """Runs that differ in nothing but the seed of training."""

    label: str
    measure: str
    """`SUCCESS` or `HELD_OUT`."""
    runs: int
    mean: float
    """Share of successes, or mean error in deviations of the actions."""
    episodes: int
    ci95: tuple[float, float]
    p_against_first: float | None
    """None for the first row of a measure, and where the environments differ or no episode is shared."""
    shared_episodes: int
    """Episodes of the same seeds as the first row's, on which the test rests."""
    trainable_parameters: int | None
    minutes: float
    """Mean of the runs."""


def find_runs(places: Sequence[Path], runs_folder: Path) -> list[Run]:
    """Read the finished runs among run folders and folders of run folders, in order of their names.

    One whose files are damaged is named, and left out.

    Args:
        places: Run folders, folders of them, names of runs, or `latest`.
        runs_folder: Where names and `latest` are looked for.

    Raises:
        UserError: A place is missing or holds no finished run, or a run's files cannot be read.
    """
    folders: dict[Path, None] = {}
    for place in places:
        run = find_run(place, runs_folder)
        configs = [run / CONFIG_FILE] if run is not None else sorted(place.glob(f"**/{CONFIG_FILE}"))
        finished = [config.parent for config in configs if _measured(config.parent) is not None]
        if not finished:
            raise UserError(
                f"{place} holds no finished run of train_policy.py (config.yaml, and {_EVALUATION} or {_HELD_OUT}): give run "
                f"folders, or a folder of them such as outputs/train_policy."
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


def _measured(folder: Path) -> Path | None:
    """Return the file that says how good a run's policy is; rollouts go before held-out episodes."""
    return next((folder / file for file in (_EVALUATION, _HELD_OUT) if (folder / file).is_file()), None)


def _read_run(folder: Path) -> Run:
    config = read_yaml(folder / "config.yaml")
    known = isinstance(config, dict) and all(isinstance(config.get(group), dict) for group in ("encoder", "policy"))
    if not known or type(config.get("seed")) is not int or not _has_texts_for_keys(config):
        raise UserError(f"{folder / 'config.yaml'} is not the config of a run of train_policy.py: leave {folder} out.")
    log = read_lines(folder / "log.jsonl")
    trainable = [entry["trainable_parameters"] for entry in log if "trainable_parameters" in entry]
    seconds = seconds_of_phases(log)
    file = _measured(folder)
    assert file is not None
    record = EvaluationRecord if file.name == _EVALUATION.name else HeldOutRecord
    return Run(
        folder,
        flat_config(config),
        record.load(file),
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
    firsts: dict[type, Sequence[Run]] = {}
    rows = []
    for label, members in groups.items():
        first = firsts.setdefault(type(members[0].record), members)
        rows.append(_row(label, members, None if members is first else first))
    return rows


def _row(label: str, runs: Sequence[Run], reference: Sequence[Run] | None) -> Row:
    by_seed = [list(run.outcomes.values()) for run in runs]
    outcomes = [outcome for of_seed in by_seed for outcome in of_seed]
    succeeds = isinstance(runs[0].record, EvaluationRecord)
    shared: list[tuple[float, float]] = []
    if reference is not None and all(run.world == reference[0].world for run in [*runs, *reference]):
        theirs = {key: outcome for run in reference for key, outcome in run.outcomes.items()}
        ours = {key: outcome for run in runs for key, outcome in run.outcomes.items()}
        shared = [(theirs[key], ours[key]) for key in theirs if key in ours]
    p_value = None
    if shared:
        pairs = list(zip(*shared, strict=True))
        p_value = (
            paired_p_value(*([bool(one) for one in side] for side in pairs)) if succeeds else paired_sign_flips(*pairs)
        )
    return Row(
        label,
        SUCCESS if succeeds else HELD_OUT,
        len(runs),
        statistics.mean(outcomes),
        len(outcomes),
        _interval(by_seed, succeeds),
        p_value,
        len(shared),
        runs[0].trainable_parameters,
        statistics.mean(run.minutes for run in runs),
    )


def _interval(by_seed: Sequence[Sequence[float]], succeeds: bool) -> tuple[float, float]:
    """Return the bootstrap interval over seeds and episodes; of successes, which may all agree, the wider of it and Wilson's."""
    count, total = sum(len(of_seed) for of_seed in by_seed), sum(sum(of_seed) for of_seed in by_seed)
    intervals = [wilson_interval(round(total), count)] if succeeds else []
    if len(by_seed) > 1 or not succeeds:
        intervals.append(bootstrap_interval(by_seed))
    return min(low for low, _ in intervals), max(high for _, high in intervals)


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
