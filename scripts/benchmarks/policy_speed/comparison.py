"""Samples trained per second by both sides, in interleaved rounds, and what each spends its time on."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from pixio_robot.common.errors import UserError, nearest_name
from policy_speed.clock import STAGES, StepClock, mean_stages, median_round
from policy_speed.lerobot_training import LeRobotTraining
from policy_speed.our_training import OurTraining

_OUR_WARMUP = 3
"""First steps of our rounds that do not count: each round starts a new optimizer."""


@dataclass(frozen=True)
class Comparison:
    """Two policies to train on the same demonstrations.

    Attributes:
        name: What the result is called.
        ours: `type` and fields of our policy.
        lerobot: `type` and fields of LeRobot's.
    """

    name: str
    ours: Mapping[str, Any]
    lerobot: Mapping[str, Any]


def chosen(names: list[str], described: Mapping[str, Mapping[str, Any]]) -> list[Comparison]:
    """Return comparisons by name, from plain values as a YAML file holds them.

    Raises:
        UserError: A name is not described.
    """
    for name in names:
        if name not in described:
            raise UserError(f"Unknown comparison {name!r}. {nearest_name(name, list(described))}")
    return [Comparison(name, **described[name]) for name in names]


def compare_speed(
    ours: OurTraining,
    lerobot: LeRobotTraining,
    *,
    rounds: int,
    our_steps: int,
    lerobot_steps: int,
    on_round: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Train both sides in turn and return what a step costs on each.

    Whatever else the machine does slows neighbouring rounds of both sides alike. Not counted are the first step of
    LeRobot's and the first few of each of our rounds, and the checkpoint at a round's end.

    Args:
        ours: Our side.
        lerobot: LeRobot's side, with the same batch size.
        rounds: Rounds of each side.
        our_steps: Measured steps of each of our rounds; many, since they are short.
        lerobot_steps: Measured steps of each of LeRobot's.
        on_round: Called after every round of both sides.

    Returns:
        For `ours` and `lerobot`: seconds per step (median of the rounds), samples per second, seconds of each stage
        in the median round, of every round, parameters and the last loss. For both: `ratio` of samples per second,
        `ratio_range` over the rounds, and `ratio_loading_hidden`, as if LeRobot's loading cost nothing: a bound on
        what loader processes on idle cores could win.
    """
    batch_size = ours.trainer.batch_size
    assert batch_size == lerobot.config.batch_size
    our_rounds, lerobot_rounds = [], []
    lerobot.run(1, StepClock())
    for _ in range(rounds):
        clock = StepClock()
        with tempfile.TemporaryDirectory() as folder:
            ours.run(_OUR_WARMUP + our_steps + 1, Path(folder) / "run", clock)  # the last step never ends
        our_rounds.append(mean_stages(clock.steps[_OUR_WARMUP:-1]))
        clock = StepClock()
        lerobot.run(lerobot_steps, clock)
        lerobot_rounds.append(mean_stages(clock.steps))
        on_round()
    our_side = _side(our_rounds, batch_size, ours.policy, ours.loss, our_steps)
    lerobot_side = _side(lerobot_rounds, batch_size, lerobot.policy, lerobot.loss, lerobot_steps)
    ratios = [_seconds(theirs) / _seconds(own) for own, theirs in zip(our_rounds, lerobot_rounds, strict=True)]
    without_loading = lerobot_side["seconds_per_step"] - lerobot_side["stages"]["loading"]
    return {
        "batch_size": batch_size,
        "action_horizon": len(ours.config.action_delta_indices),
        "n_obs_steps": ours.config.n_obs_steps,
        "ours": our_side,
        "lerobot": lerobot_side,
        "ratio": lerobot_side["seconds_per_step"] / our_side["seconds_per_step"],
        "ratio_range": [min(ratios), max(ratios)],
        "ratio_loading_hidden": without_loading / our_side["seconds_per_step"],
    }


def _side(
    rounds: list[dict[str, float]], batch_size: int, policy: nn.Module, loss: float, steps_per_round: int
) -> dict[str, Any]:
    stages = median_round(rounds)
    return {
        "seconds_per_step": _seconds(stages),
        "samples_per_second": batch_size / _seconds(stages),
        "stages": stages,
        "rounds": rounds,
        "steps_per_round": steps_per_round,
        "parameters": sum(parameter.numel() for parameter in policy.parameters()),
        "trainable_parameters": sum(parameter.numel() for parameter in policy.parameters() if parameter.requires_grad),
        "loss": loss,
    }


def _seconds(stages: Mapping[str, float]) -> float:
    return sum(stages[stage] for stage in STAGES)
