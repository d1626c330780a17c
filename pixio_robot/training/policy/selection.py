"""Rollouts during training, and the checkpoint that they say is best."""

from collections.abc import Callable
from pathlib import Path

from pixio_robot.engine.checkpoints import Checkpoints
from pixio_robot.engine.run_log import RunLog
from pixio_robot.evaluation.record import EvaluationRecord
from pixio_robot.training.policy.objective import MODEL_FOLDER


class Selection:
    """Evaluates checkpoints every so many steps, and keeps the most successful one.

    Of checkpoints that succeed equally often the latest counts: it was trained the longest.
    """

    def __init__(
        self,
        evaluate: Callable[[Path], EvaluationRecord] | None,
        every: int,
        total_steps: int,
        checkpoints: Checkpoints,
        log: RunLog,
    ) -> None:
        """Prepare to evaluate.

        Args:
            evaluate: Rolls out the policy of a `pretrained_model` folder; None never evaluates.
            every: Steps between evaluations; 0 never evaluates.
            total_steps: Steps of the whole training, after which the last evaluation is.
            checkpoints: Of the run; `best` points at the best of them.
            log: Receives each success rate, and knows those of an interrupted run.
        """
        self._evaluate, self._every, self._total_steps = evaluate, every, total_steps
        self._checkpoints, self._log = checkpoints, log
        self._keep_best()

    def due(self, step: int) -> bool:
        """Whether the checkpoint of a step is to be evaluated and has not been."""
        planned = self._every > 0 and step > 0 and (step % self._every == 0 or step == self._total_steps)
        return planned and self._evaluate is not None and step not in success_rates(self._log)

    def consider(self, step: int) -> None:
        """Evaluate the checkpoint of a step, log its success, and keep it if none was better."""
        assert self._evaluate is not None
        record = self._evaluate(self._checkpoints.path(step) / MODEL_FOLDER)
        # An evaluation that is not in the log is repeated by a resumed run, with the same result.
        self._log.write(
            "training",
            step=step,
            success_rate=record.success_rate,
            mean_return=record.mean_return,
            episodes=record.n_episodes,
        )
        self._keep_best()
        self._log.console.print(f"after {step:,} steps {record.summary()}", highlight=False)

    def _keep_best(self) -> None:
        best = best_step(self._log)
        if best is not None and best in self._checkpoints.steps():
            self._checkpoints.protected = {best}
            self._checkpoints.point_at("best", best)


def success_rates(log: RunLog) -> dict[int, float]:
    """Return the success rates of a run's evaluations during training, by step."""
    entries = log.entries("training")
    return {entry["step"]: entry["success_rate"] for entry in entries if "success_rate" in entry}


def best_step(log: RunLog) -> int | None:
    """Return the step whose checkpoint is best; None before the first evaluation that had a success."""
    rates = success_rates(log)
    return max(rates, key=lambda step: (rates[step], step)) if rates else None
