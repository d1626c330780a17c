"""TriFinger: demonstrations of torch's files, and a policy scored by those that it has not seen."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.downstream.config import Data
from pixio_robot.downstream.robot_learning.config import RobotLearningProtocol
from pixio_robot.downstream.robot_learning.task import robot_learning_tasks
from pixio_robot.downstream.robot_learning.trifinger import Trifinger
from pixio_robot.encoders import EncoderConfig

QUIET = Console(quiet=True)


def demonstration(number: int, steps: int = 6) -> dict[str, Any]:
    """Return an episode whose moves are as the fingertips are, and so can be learnt."""
    rng = np.random.default_rng(number)
    fingertips = rng.normal(size=(steps, 9))
    return {
        "image_60": rng.integers(0, 256, (steps, 30, 30, 3), np.uint8),
        "ft_pos_cur": fingertips,
        "delta_ftpos": 2 * fingertips[:-1],
        "t": np.arange(steps),
    }


def write(folder: Path, task: str, content: dict[str, Any], number: int) -> None:
    place = folder / "trifinger-demos" / task / f"demo-{number:04d}" / "dts-0p4"
    place.mkdir(parents=True)
    torch.save(content, place / "downsample.pth")


def suite(folder: Path, **settings: object) -> Trifinger:
    return Trifinger(RobotLearningProtocol(trifinger={"tasks": ["move"], **settings}), Data(cortexbench=folder))


def test_demonstrations_and_goals(tmp_path: Path) -> None:
    episodes = [demonstration(number, 6 + number) for number in range(4)]
    for number, episode in enumerate(episodes):
        write(tmp_path, "move", episode, number)
        write(tmp_path, "reach", episode, number)
    move = suite(tmp_path, demonstrations=3, rollouts=1)
    store, _ = move.opened("move", tmp_path / "stores", QUIET)
    assert store.episode_ends.tolist() == [5, 11, 18]
    second = store.episode(1)
    np.testing.assert_array_equal(second["observation.images.image_60"], episodes[1]["image_60"][:-1])
    np.testing.assert_array_equal(second["observation.images.goal"], [episodes[1]["image_60"][-1]] * 6)
    np.testing.assert_allclose(second["action"], episodes[1]["delta_ftpos"], rtol=1e-6)
    held_out = move.held_out("move", tmp_path / "stores", QUIET)
    np.testing.assert_array_equal(held_out.episode(0)["observation.images.image_60"], episodes[3]["image_60"][:-1])
    reach = suite(tmp_path, tasks=["reach"], demonstrations=3, rollouts=1)
    first = reach.opened("reach", tmp_path / "stores", QUIET)[0].episode(0)
    assert set(first) == {"observation.images.image_60", "observation.state", "action"}
    assert first["action"].shape == (5, 3)  # of one finger


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"image_60": None}, "image_60 is not there"),
        ({"image_60": [1]}, "image_60 is no array of 4 axes"),
        ({"image_60": np.zeros((6, 30, 30, 3))}, "image_60 is float64"),
        ({"delta_ftpos": np.zeros((3, 9))}, "has 6 frames, 6 fingertip positions and 3 moves"),
        ({"ft_pos_cur": torch.zeros(6, 9)}, "plain containers only"),
    ],
)
def test_what_is_no_demonstration_is_named(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    write(tmp_path, "move", demonstration(0) | change, 0)
    with pytest.raises(UserError, match="2 demonstrations were looked for as .*and there are 1"):
        suite(tmp_path, demonstrations=1, rollouts=1).check()
    write(tmp_path, "move", demonstration(1), 1)
    with pytest.raises(UserError, match=sentence) as caught:
        suite(tmp_path, demonstrations=1, rollouts=1).opened("move", tmp_path / "stores", QUIET)
    assert "demo-0000" in str(caught.value)
    assert not list((tmp_path / "stores").iterdir())


@pytest.mark.slow
def test_a_policy_is_scored_by_what_it_has_not_seen(tmp_path: Path) -> None:
    for number in range(40):
        write(tmp_path, "move", demonstration(number, 21), number)
    protocol = RobotLearningProtocol(
        suites=("trifinger",),
        trifinger={
            "tasks": ["move"],
            "demonstrations": 38,
            "rollouts": 2,
            "move_epochs": 40,
            "learning_rate": 1e-3,
            "hidden_width": 64,
            "image_size": 16,
        },
    )
    (task,) = robot_learning_tasks(protocol, Data(cortexbench=tmp_path), tmp_path / "data")
    task.check(EncoderConfig("pixels"))
    (tmp_path / "cell").mkdir()
    result = task.measure(EncoderConfig("pixels"), tmp_path / "cell", QUIET)
    assert 0.3 < result.metrics["final"][0] < 1
    assert result.metrics["final"] == result.metrics["highest"]
    assert task.measure(EncoderConfig("pixels"), tmp_path / "cell", QUIET) == result
