"""Policies on an encoder: successes are counted per seed and condition, and what is there is not measured again."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.downstream.robustness.config import RobustnessProtocol
from pixio_robot.downstream.robustness.task import robustness_tasks
from pixio_robot.encoders import EncoderConfig
from pixio_robot.evaluation.record import Episode, EvaluationRecord
from pixio_robot.training.config import EvaluationConfig, TrainerConfig

ENV = {"type": "pixio_robosuite", "task": "Lift", "image_size": 128}
POLICY: dict[str, Any] = {"type": "pixio_bc"}
PROTOCOL = RobustnessProtocol(perturbations=("light",), seeds=(0, 1), evaluation=EvaluationConfig(episodes=4))


def task(folder: Path, protocol: RobustnessProtocol = PROTOCOL) -> Any:
    return robustness_tasks(protocol, POLICY, {"robosuite_lift": ENV}, folder)[0]


def test_episodes_that_are_there_are_counted_by_seed(tmp_path: Path) -> None:
    for seed in (0, 1):
        for condition, successes in (("none", [True] * 4), ("light", [True, False, False, seed == 1])):
            episodes = tuple(
                Episode(seed=100000 + number, success=success, steps=3, total_reward=float(success), seconds=0.1)
                for number, success in enumerate(successes)
            )
            record = EvaluationRecord(episodes, ENV, "fast", {}, "somewhere", seconds=1.0, workers=1)
            record.save(tmp_path / f"seed_{seed}" / f"{condition}.json")
    result = task(tmp_path).measure(EncoderConfig(), tmp_path, Console(quiet=True))
    assert result.metrics == {"none": [1.0, 1.0], "light": [0.25, 0.5], "mean_changed": [0.25, 0.5]}
    low, high = result.intervals["light"]
    assert low < 0.375 < high
    assert result.intervals["none"] == (1.0, 1.0)
    assert result.record["successes"]["light"] == [[True, False, False, False], [True, False, False, True]]


def test_a_cell_is_of_everything_that_decides_it_and_of_nothing_else(tmp_path: Path) -> None:
    def identity(**changes: Any) -> dict[str, Any]:
        fields = {"perturbations": ("light",), "evaluation": EvaluationConfig(episodes=4)} | changes
        return task(tmp_path, RobustnessProtocol(**fields)).identity()

    assert identity() == identity(evaluation=EvaluationConfig(episodes=4, workers=7, videos=0))
    assert identity() != identity(trainer=TrainerConfig(steps=5000))
    assert identity() != identity(evaluation=EvaluationConfig(episodes=5))
    assert identity() != identity(seeds=(1,))


def test_mistakes_cost_no_training(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"did you mean 'light'\?"):
        task(tmp_path, RobustnessProtocol(perturbations=("lihgt",)))
    with pytest.raises(UserError, match="measures nothing"):
        task(tmp_path, RobustnessProtocol(evaluation=EvaluationConfig(episodes=0)))
    with pytest.raises(UserError, match="divisible by 16"):
        robustness_tasks(PROTOCOL, POLICY, {"lift": ENV | {"image_size": 100}}, tmp_path)[0].check(EncoderConfig())
