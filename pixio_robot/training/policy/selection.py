"""Looks at a policy during training, by rollouts or on held-out episodes, and the checkpoint that they say is best."""

from collections.abc import Callable
from pathlib import Path

from pixio_robot.engine.checkpoints import Checkpoints
from pixio_robot.engine.run_log import RunLog
from pixio_robot.evaluation.checkpoints import MODEL_FOLDER
from pixio_robot.evaluation.open_loop import HELD_OUT_ERROR, HeldOutRecord
from pixio_robot.evaluation.record import EvaluationRecord


class Selection:
    """Evaluates checkpoints every so many steps, and keeps the one with the most successes or the least held-out error.

    Of checkpoints that are equally good the latest counts: it was trained the longest.
    """

    def __init__(
        self,
        evaluate: Callable[[Path], EvaluationRecord | HeldOutRecord] | None,
        every: int,
        total_steps: int,
        checkpoints: Checkpoints,
        log: RunLog,
    ) -> None:
        """Prepare to evaluate.

        Args:
            evaluate: Measures the policy of a `pretrained_model` folder; None never evaluates.
            every: Steps between evaluations; 0 never evaluates.
            total_steps: Steps of the whole training, after which the last evaluation is.
            checkpoints: Of the run; `best` points at the best of them.
            log: Receives each result, and knows those of an interrupted run.
        """
        self._evaluate, self._every, self._total_steps = evaluate, every, total_steps
        self._checkpoints, self._log = checkpoints, log
        self._keep_best()

    def due(self, step: int) -> bool:
        """Whether the checkpoint of a step is to be evaluated and has not been."""
        planned = self._every > 0 and step > 0 and (step % self._every == 0 or step == self._total_steps)
        return planned and self._evaluate is not None and step not in _scores(self._log)

    def consider(self, step: int) -> None:
        """Evaluate the checkpoint of a step, log the result, and keep it if none was better."""
        assert self._evaluate is not None
        record = self._evaluate(self._checkpoints.path(step) / MODEL_FOLDER)
        # An evaluation that is not in the log is repeated by a resumed run, with the same result.
        self._log.write("training", step=step, **record.for_curves())
        self._keep_best()
        self._log.console.print(f"after {step:,} steps {record.short_summary()}", highlight=False, soft_wrap=True)

    def _keep_best(self) -> None:
        best = best_step(self._log)
        if best is not None and best in self._checkpoints.steps():
            self._checkpoints.protected = {best}
            self._checkpoints.point_at("best", best)


def best_step(log: RunLog) -> int | None:
    """Return the step whose checkpoint is best; None before the first evaluation."""
    scores = _scores(log)
    return max(scores, key=lambda step: (scores[step], step)) if scores else None


def _scores(log: RunLog) -> dict[int, float]:
    """Return how good a run's evaluations during training found it, by step: the larger, the better."""
    entries = log.entries("training")
    rates = {entry["step"]: entry["success_rate"] for entry in entries if "success_rate" in entry}
    return rates or {entry["step"]: -entry[HELD_OUT_ERROR] for entry in entries if HELD_OUT_ERROR in entry}
