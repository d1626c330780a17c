"""How well a policy foresees recorded actions: errors on held-out episodes beside simple guesses, as `held_out.json`.

Shape letters: E episodes, N windows, H steps of the horizon, A numbers of an action.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from matplotlib.figure import Figure
from pydantic import TypeAdapter, ValidationError

from pixio_robot.common.errors import UserError
from pixio_robot.common.statistics import bootstrap_interval
from pixio_robot.common.storage.documents import read_json
from pixio_robot.common.storage.files import write_json
from pixio_robot.reports.charts import save_figure

HELD_OUT_ERROR = "held_out_error"
"""Name in logs of the mean error on held-out episodes, relative to the actions' deviation."""
_MOST_DRAWN = 8  # numbers of an action in a picture
_MOMENTS = 3  # of large errors, whose frames are shown


@dataclass(frozen=True)
class Foreseen:
    """What was predicted and recorded in one episode, at every step where a new chunk would be asked for.

    Attributes:
        episode: Its number in the demonstrations.
        steps_N: Steps of the episode at which chunks begin.
        predicted_NHA: Actions of the policy.
        recorded_NHA: Actions of the demonstration.
        valid_NH: Whether the step lies within the episode.
        baselines: Other guesses (N, H, A), by name.
    """

    episode: int
    steps_N: np.ndarray
    predicted_NHA: np.ndarray
    recorded_NHA: np.ndarray
    valid_NH: np.ndarray
    baselines: Mapping[str, np.ndarray]

    def error(self, guess_NHA: np.ndarray | None = None) -> np.ndarray:
        """Return the mean absolute error of each number of an action (A,), of the policy or another guess."""
        errors_NHA = np.abs((self.predicted_NHA if guess_NHA is None else guess_NHA) - self.recorded_NHA)
        return errors_NHA[self.valid_NH].mean(axis=0)


@dataclass(frozen=True)
class HeldOutRecord:
    """The verdict on episodes never trained on.

    Attributes:
        episodes: Their numbers.
        names: Of the numbers of an action.
        scale: Deviation of each number in the demonstrations: errors are compared in its units.
        checkpoint: The policy that was judged.
        by_episode: Of each episode the policy's mean error over numbers, relative to scale.
        error: Mean absolute error of each number, in its own unit.
        error_by_step: The same for each step of the horizon (H lists of A).
        relative: Mean over numbers of error / scale, by guess: the policy's is `policy`.
        intervals: 95 % intervals of `relative`, over episodes.
        joins: Mean jump from one executed chunk to the next, relative to scale, beside that of the recorded steps.
    """

    episodes: list[int]
    checkpoint: str
    by_episode: list[float]
    names: list[str]
    scale: list[float]
    error: list[float]
    error_by_step: list[list[float]]
    relative: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    joins: dict[str, float]

    def summary(self) -> str:
        """Say the verdict in one line, for people."""
        low, high = self.intervals["policy"]
        others = ", ".join(f"{name} {100 * value:.0f} %" for name, value in self.relative.items() if name != "policy")
        several = len(self.episodes) > 1  # one alone has no interval
        better = several and all(high < value for name, value in self.relative.items() if name != "policy")
        verdict = (
            "better than every guess" if better else "NOT clearly better than a guess: do not run it on a robot yet"
        )
        interval = f" [{100 * low:.0f}, {100 * high:.0f}]" if several else " (one episode says little)"
        return (
            f"{len(self.episodes)} held-out episodes: open-loop error {100 * self.relative['policy']:.0f} % of the actions' "
            f"deviation{interval}, {verdict} ({others})"
        )

    def short_summary(self) -> str:
        """Say the error in few words."""
        return f"held-out error {100 * self.relative['policy']:.1f} %"

    def for_curves(self) -> dict[str, float]:
        """Return what a log keeps of a look during training."""
        return {HELD_OUT_ERROR: self.relative["policy"], "episodes": len(self.episodes)}

    def save(self, path: Path) -> None:
        """Write `held_out.json`."""
        write_json(path, {"summary": self.summary(), **dataclasses.asdict(self)})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a `held_out.json`.

        Raises:
            UserError: The file is missing or is not such a record.
        """
        content = read_json(path)
        try:
            assert isinstance(content, dict)
            record = cls(**{field.name: content[field.name] for field in dataclasses.fields(cls)})
            return TypeAdapter(cls).validate_python(dataclasses.asdict(record), strict=False)
        except (AssertionError, KeyError, ValidationError) as error:
            raise UserError(f"{path} is no record of held-out episodes: run the training again.") from error


def judge(
    foreseen: Sequence[Foreseen], names: Sequence[str], scale_A: np.ndarray, executed: int, checkpoint: str
) -> HeldOutRecord:
    """Sum up what was foreseen.

    Args:
        foreseen: One for each held-out episode.
        names: Of the numbers of an action.
        scale_A: Deviation of each number; one that stands still counts in its own unit.
        executed: Actions of each chunk that are executed before the next.
        checkpoint: The policy that foresaw them.
    """
    scale_A = np.where(scale_A > 0, scale_A, 1.0)
    by_guess = {"policy": [float((one.error() / scale_A).mean()) for one in foreseen]}
    for name in foreseen[0].baselines:
        by_guess[name] = [float((one.error(one.baselines[name]) / scale_A).mean()) for one in foreseen]
    horizon = foreseen[0].predicted_NHA.shape[1]
    by_step = []
    for step in range(horizon):
        errors = [np.abs(one.predicted_NHA - one.recorded_NHA)[:, step][one.valid_NH[:, step]] for one in foreseen]
        joined = np.concatenate(errors)
        by_step.append([float(value) for value in joined.mean(axis=0)] if len(joined) else [])
    return HeldOutRecord(
        episodes=[one.episode for one in foreseen],
        checkpoint=checkpoint,
        by_episode=by_guess["policy"],
        names=list(names),
        scale=scale_A.tolist(),
        error=np.mean([one.error() for one in foreseen], axis=0).tolist(),
        error_by_step=by_step,
        relative={name: float(np.mean(values)) for name, values in by_guess.items()},
        intervals={name: bootstrap_interval([values]) for name, values in by_guess.items()},
        joins=_joins(foreseen, scale_A, executed),
    )


def _joins(foreseen: Sequence[Foreseen], scale_A: np.ndarray, executed: int) -> dict[str, float]:
    chunks, recorded = [], []
    for one in foreseen:
        last_NA, first_NA = one.predicted_NHA[:-1, executed - 1], one.predicted_NHA[1:, 0]
        chunks += [*(np.abs(first_NA - last_NA) / scale_A).mean(axis=1)]
        steps_NHA = np.abs(np.diff(one.recorded_NHA, axis=1)) / scale_A
        recorded += [*steps_NHA[one.valid_NH[:, 1:]].mean(axis=-1)]
    return {
        name: float(np.mean(values)) if values else 0.0 for name, values in (("policy", chunks), ("recorded", recorded))
    }


def save_pictures(
    foreseen: Sequence[Foreseen],
    record: HeldOutRecord,
    executed: int,
    folder: Path,
    frame: Callable[[int, int], np.ndarray],
) -> None:
    """Draw predicted over recorded actions of the worst, the best and the median episode, as PNG named for the report.

    Args:
        foreseen: One for each held-out episode.
        record: The verdict on them.
        executed: Actions of each chunk that are executed before the next.
        folder: Receives the pictures.
        frame: Returns a uint8 RGB picture of a step of an episode, given their numbers.
    """
    order = sorted(foreseen, key=lambda one: float((one.error() / record.scale).mean()))
    chosen = [("worst", order[-1]), ("best", order[0]), ("median", order[len(order) // 2])]
    for what, one in chosen[: len(order)]:
        save_figure(_figure(one, record, executed, frame), folder / f"held out {what} episode {one.episode}.png")


def _figure(one: Foreseen, record: HeldOutRecord, executed: int, frame: Callable[[int, int], np.ndarray]) -> Figure:
    count = min(_MOST_DRAWN, len(record.names))
    figure = Figure(figsize=(9, 3.2 + 1.1 * count), layout="constrained")
    above, below = np.ravel(np.array(figure.subfigures(2, 1, height_ratios=(0.6 + 1.1 * count, 2.6))))
    errors_NH = (np.abs(one.predicted_NHA - one.recorded_NHA) / record.scale).mean(axis=-1)
    errors_N = (errors_NH * one.valid_NH)[:, :executed].sum(axis=1) / one.valid_NH[:, :executed].sum(axis=1).clip(1)
    moments = _apart(errors_N)
    panels = above.subplots(count, 1, squeeze=False, sharex=True)[:, 0]
    for number, axes in enumerate(panels):
        for start, predicted_HA, recorded_HA, valid_H in zip(
            one.steps_N, one.predicted_NHA, one.recorded_NHA, one.valid_NH, strict=True
        ):
            length = min(executed, int(valid_H.sum()))
            steps = np.arange(start, start + length)
            axes.plot(steps, recorded_HA[:length, number], color="#9aa4b2", linewidth=2)
            axes.plot(steps, predicted_HA[:length, number], color="#2f6feb", linewidth=1)
        for moment in moments:
            axes.axvline(one.steps_N[moment], color="#c2410c", linewidth=0.6)
        axes.set_ylabel(record.names[number], fontsize=7, rotation=0, ha="right")
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_title("recorded (grey) and predicted (blue) actions", fontsize=8, loc="left")
    panels[-1].set_xlabel("step; red: where the error is largest, as below", fontsize=8)
    for axes, moment in zip(below.subplots(1, len(moments), squeeze=False)[0], moments, strict=True):
        step = int(one.steps_N[moment])
        axes.imshow(frame(one.episode, step))
        axes.set_title(f"step {step}: {100 * errors_N[moment]:.0f} % of the deviation", fontsize=8)
        axes.set_axis_off()
    return figure


def _apart(errors_N: np.ndarray) -> list[int]:
    """Return the windows of the largest errors, no two of them neighbours, in order."""
    chosen: list[int] = []
    for window in np.argsort(-errors_N).tolist():
        if len(chosen) < _MOMENTS and all(abs(window - other) > 1 for other in chosen):
            chosen.append(window)
    return sorted(chosen)
