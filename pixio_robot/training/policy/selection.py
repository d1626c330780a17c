"""Rollouts during training, and the checkpoint that they say is best."""

from collections.abc import Callable
from pathlib import Path

from pixio_robot.engine.run_log import RunLog
from pixio_robot.evaluation.record import EvaluationRecord
from pixio_robot.training.policy.checkpoints import point_at


class Selection:
    """Evaluates checkpoints every so many steps and points `checkpoints/best` at the most successful one.

    Of checkpoints that succeed equally often the latest counts: it was trained the longest.
    """

    def __init__(self, evaluate: Callable[[Path], EvaluationRecord], every: int, total_steps: int, log: RunLog) -> None:
        """Prepare to evaluate.

        Args:
            evaluate: Rolls out the policy of a `pretrained_model` folder.
            every: Steps between evaluations; 0 never evaluates.
            total_steps: Steps of the whole training, after which the last evaluation is.
            log: Receives each success rate, and knows those of an interrupted run.
        """
        self._evaluate, self._every, self._total_steps, self._log = evaluate, every, total_steps, log

    def due(self, step: int) -> bool:
        """Whether the checkpoint of a step is to be evaluated and has not been."""
        planned = self._every > 0 and step > 0 and (step % self._every == 0 or step == self._total_steps)
        return planned and step not in self._rates()

    def consider(self, step: int, model_dir: Path) -> None:
        """Evaluate the checkpoint of a step, log its success, and keep it if none was better."""
        record = self._evaluate(model_dir)
        if record.success_rate >= max(self._rates().values(), default=0.0):
            point_at("best", model_dir.parent)
        # Logged last: an evaluation that is not in the log is repeated by a resumed run, with the same result.
        self._log.write("training", step=step, success_rate=record.success_rate, episodes=record.n_episodes)
        self._log.console.print(f"after {step:,} steps {record.summary()}", highlight=False)

    def _rates(self) -> dict[int, float]:
        entries = self._log.entries("training")
        return {entry["step"]: entry["success_rate"] for entry in entries if "success_rate" in entry}
