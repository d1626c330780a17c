"""What an evaluation found: `evaluation.json`."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, NotRequired, Self, TypedDict

from annotated_types import Ge, Le, MinLen
from pydantic import AfterValidator, AllowInfNan, Field, TypeAdapter, ValidationError

from pixio_robot.common.errors import UserError, printable
from pixio_robot.common.statistics import wilson_interval
from pixio_robot.common.storage.documents import read_json
from pixio_robot.common.storage.files import write_json


def _inside(path: str) -> str:
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ValueError("a path outside the folder of the record")
    return path


# Anybody may have written a file: what it must hold, by types and ranges.
_Whole = Annotated[int, Ge(0), Le((1 << 63) - 1)]
_Seconds = Annotated[float, Ge(0), AllowInfNan(False)]


class _KnownEpisode(TypedDict):
    seed: _Whole
    success: bool
    steps: _Whole
    total_reward: Annotated[float, Field(validation_alias="return")]
    seconds: _Seconds
    video: NotRequired[Annotated[str, AfterValidator(_inside)]]
    error: NotRequired[str]
    task: NotRequired[str]


class _KnownCrash(TypedDict):
    seed: _Whole
    attempt: _Whole
    reason: str


class _Known(TypedDict):
    episodes: Annotated[list[_KnownEpisode], MinLen(1)]
    env: dict[str, Any]
    render_profile: str | None
    versions: dict[str, str]
    checkpoint: str
    seconds: _Seconds
    workers: _Whole
    batch_size: NotRequired[_Whole]
    crashes: list[_KnownCrash]


@dataclass(frozen=True)
class Episode:
    """One rollout of a policy.

    Attributes:
        seed: Seed that the environment was reset with.
        success: Whether the environment reported success at any step.
        steps: Number of actions executed.
        total_reward: Sum of the rewards, written as `return`.
        seconds: Wall time of the rollout, with what ran beside it in a batch.
        video: Path of the rollout's video, relative to the folder of `evaluation.json`; None without one.
        error: Why the rollout never finished, both its attempts having crashed (it then counts as a failure);
            None for a rollout that ran to its end.
        task: The task's sentence, where the evaluation is of several tasks.
    """

    seed: int
    success: bool
    steps: int
    total_reward: float
    seconds: float
    video: str | None = None
    error: str | None = None
    task: str | None = None

    @classmethod
    def lost(cls, seed: int, reason: str) -> Self:
        """Return an episode that was not run to its end, and why."""
        return cls(seed, success=False, steps=0, total_reward=0.0, seconds=0.0, error=reason)


@dataclass(frozen=True)
class Crash:
    """One attempt at an episode that ended with a dead worker, an exception, or at its time limit."""

    seed: int
    attempt: int
    reason: str


@dataclass(frozen=True)
class EvaluationRecord:
    """Everything worth keeping of one evaluation.

    Attributes:
        episodes: In the order of the seeds that were asked for.
        env: The environment's type and fields, as `environments.describe_env` gives them.
        render_profile: Name of the render profile; None for environments that have none.
        versions: As `software_versions` gives them.
        checkpoint: Path of the policy's checkpoint folder.
        seconds: Wall time of the whole evaluation, loading included.
        workers: Number of processes that ran episodes; changes no result.
        batch_size: Episodes that ran side by side in each; may change results by rounding.
        crashes: Every attempt that crashed, whether or not its retry went well.
    """

    episodes: tuple[Episode, ...]
    env: dict[str, Any]
    render_profile: str | None
    versions: dict[str, str]
    checkpoint: str
    seconds: float
    workers: int
    batch_size: int = 1
    crashes: tuple[Crash, ...] = field(default=())

    @classmethod
    def of_parts(cls, records: Sequence[Self]) -> Self:
        """Return the record of all episodes of several, in their order; seconds add up."""
        return dataclasses.replace(
            records[0],
            episodes=tuple(episode for record in records for episode in record.episodes),
            seconds=math.fsum(record.seconds for record in records),
            workers=max(record.workers for record in records),
            crashes=tuple(crash for record in records for crash in record.crashes),
        )

    @property
    def n_episodes(self) -> int:
        """Number of episodes, crashed ones included."""
        return len(self.episodes)

    @property
    def n_successes(self) -> int:
        """Number of successful episodes."""
        return sum(episode.success for episode in self.episodes)

    @property
    def success_rate(self) -> float:
        """Share of successful episodes, in [0, 1]."""
        return self.n_successes / self.n_episodes

    @property
    def mean_return(self) -> float:
        """Mean over the episodes of the sum of rewards."""
        return math.fsum(episode.total_reward for episode in self.episodes) / self.n_episodes

    @property
    def ci95(self) -> tuple[float, float]:
        """95 % Wilson interval of the success rate."""
        return wilson_interval(self.n_successes, self.n_episodes)

    @property
    def tasks(self) -> dict[str, tuple[int, int]]:
        """Successes and episodes of each task by its sentence, in the order of the first episodes; empty for one task."""
        counts: dict[str, tuple[int, int]] = {}
        for episode in self.episodes:
            if episode.task is not None:
                successes, episodes = counts.get(episode.task, (0, 0))
                counts[episode.task] = successes + episode.success, episodes + 1
        return counts

    def summary(self) -> str:
        """Say the result in one line, for people; of several tasks, with a line for each after it."""
        low, high = self.ci95
        whole = (
            f"{100 * self.success_rate:.0f} % success ({self.n_successes} of {self.n_episodes} episodes, "
            f"95 % interval {100 * low:.1f}–{100 * high:.1f} %)"
        )
        rates = {task: successes / episodes for task, (successes, episodes) in self.tasks.items()}
        if not rates:
            return whole
        each = [
            f"{100 * rate:4.0f} % ({self.tasks[task][0]} of {self.tasks[task][1]})  {task}"
            for task, rate in rates.items()
        ]
        return "\n".join(
            [f"{whole}; mean over {len(rates)} tasks {100 * sum(rates.values()) / len(rates):.0f} %", *each]
        )

    def short_summary(self) -> str:
        """Say the result in few words."""
        return self.summary()

    def for_curves(self) -> dict[str, float]:
        """Return what a log keeps of an evaluation during training."""
        return {"success_rate": self.success_rate, "mean_return": self.mean_return, "episodes": self.n_episodes}

    def as_json(self) -> dict[str, Any]:
        """Return what `evaluation.json` holds; the report's page shows it."""
        return {
            "success_rate": self.success_rate,
            "ci95": list(self.ci95),
            "n_episodes": self.n_episodes,
            **({"tasks": {task: list(counts) for task, counts in self.tasks.items()}} if self.tasks else {}),
            "env": self.env,
            "render_profile": self.render_profile,
            "versions": self.versions,
            "checkpoint": self.checkpoint,
            "seconds": self.seconds,
            "workers": self.workers,
            "batch_size": self.batch_size,
            "crashes": [dataclasses.asdict(crash) for crash in self.crashes],
            "episodes": [_episode_to_json(episode) for episode in self.episodes],
        }

    def save(self, path: Path) -> None:
        """Write `evaluation.json` atomically."""
        write_json(path, self.as_json())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read an `evaluation.json`.

        Raises:
            UserError: The file is missing or is not an evaluation record.
        """
        try:
            content = TypeAdapter(_Known).validate_python(read_json(path), strict=True)
            return cls(
                episodes=tuple(Episode(**episode) for episode in content["episodes"]),
                env=content["env"],
                render_profile=content["render_profile"],
                versions=content["versions"],
                checkpoint=content["checkpoint"],
                seconds=content["seconds"],
                workers=content["workers"],
                batch_size=content.get("batch_size", 1),  # records of before there were batches have none
                crashes=tuple(Crash(**crash) for crash in content["crashes"]),
            )
        except (ValidationError, TypeError) as error:
            what = (
                error.errors(include_url=False)[0] if isinstance(error, ValidationError) else {"loc": (), "msg": error}
            )
            place = printable(" ".join(map(str, (*what["loc"], what["msg"]))))[:200]
            raise UserError(
                f"{path} is not an evaluation record ({place}): expected the evaluation.json of a run folder."
            ) from error


def _episode_to_json(episode: Episode) -> dict[str, Any]:
    content = dataclasses.asdict(episode)
    content["return"] = content.pop("total_reward")
    return {name: value for name, value in content.items() if value is not None}
