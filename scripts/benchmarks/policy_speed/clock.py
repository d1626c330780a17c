"""Where the time of a training step goes, measured without a change to the loop that is timed."""

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from lerobot.policies import PreTrainedPolicy
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

STAGES = ("loading", "preprocessing", "forward", "backward", "optimizer", "rest")
"""Loading is reading, decoding and collating; preprocessing the processor pipeline; backward includes the clipping of
gradients; rest is everything between the optimizer and the next batch: schedule, moving average, log."""


class StepClock:
    """The seconds of every stage of every step; both sides of a comparison are measured by one of these.

    A step starts when its batch is asked for and ends when the next one is, so the last step is never complete.
    """

    def __init__(self) -> None:
        """Start without steps."""
        self.steps: list[dict[str, float]] = []
        self._last = 0.0

    def begin_step(self) -> None:
        """Note that a batch is asked for."""
        if self.steps:
            self.mark("rest")
        self.steps.append(dict.fromkeys(STAGES, 0.0))
        self._last = self._now()

    def mark(self, stage: str) -> None:
        """Count the time since the last mark to a stage of the present step."""
        now = self._now()
        self.steps[-1][stage] += now - self._last
        self._last = now

    @contextmanager
    def watching(self, policy: PreTrainedPolicy) -> Iterator[None]:
        """Mark the stages after loading by themselves, for a loop that trains this policy and nothing else."""
        # LeRobot's step calls `forward`; the engine asks our policies for the terms of their loss.
        name = "loss_terms" if hasattr(policy, "loss_terms") else "forward"
        forward = getattr(policy, name)

        def timed_forward(*args: object, **kwargs: object) -> object:
            self.mark("preprocessing")
            output = forward(*args, **kwargs)  # type: ignore[arg-type]
            self.mark("forward")
            return output

        setattr(policy, name, timed_forward)
        hooks = [
            register_optimizer_step_pre_hook(lambda *_: self.mark("backward")),
            register_optimizer_step_post_hook(lambda *_: self.mark("optimizer")),
        ]
        try:
            yield
        finally:
            delattr(policy, name)
            for hook in hooks:
                hook.remove()

    @staticmethod
    def _now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()


def mean_stages(steps: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean seconds of each stage over some steps."""
    return {stage: statistics.fmean(step[stage] for step in steps) for stage in STAGES}


def median_round(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the round whose whole step took the median time (of an even number, the longer of the middle two)."""
    return sorted(rounds, key=lambda stages: sum(stages.values()))[len(rounds) // 2]
