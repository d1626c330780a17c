"""A policy in another world than it was trained in: refused where actions mean something else, said where it may be meant."""

import logging
from typing import Any

import pytest

from pixio_robot.common.errors import UserError
from pixio_robot.common.worlds import check_world
from pixio_robot.environments import describe_env, env_config_from

LIFT = describe_env(env_config_from({"type": "pixio_robosuite", "task": "Lift"}))


def then(**changes: Any) -> dict[str, Any]:
    return {"env": LIFT | changes, "versions": {"mujoco": "3.8.1"}}


@pytest.mark.parametrize(
    ("trained", "said"),
    [
        (then(fps=10), "was trained at 10 Hz, and the environment runs at 20 Hz.*env.fps=10"),
        ({"env": {}, "fps": 30}, "was trained at 30 Hz"),
        (then(type="pixio_metaworld"), "env.type=pixio_metaworld"),
        (then(control_mode="joint"), None),  # a field that this environment does not have says nothing
    ],
)
def test_where_actions_mean_something_else_nothing_is_run(trained: dict[str, Any], said: str | None) -> None:
    if said is None:
        check_world(trained, LIFT, {"mujoco": "3.8.1"}, "The policy was trained")
        return
    with pytest.raises(UserError, match=said):
        check_world(trained, LIFT, {}, "The policy was trained")


def test_what_may_be_meant_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="pixio_robot"):
        check_world(then(task="Door", robot="Sawyer"), LIFT, {"mujoco": "3.8.1"}, "The policy was trained")
        (warning,) = [record.getMessage() for record in caplog.records]
        assert "task Door then, Lift now" in warning
        assert "robot Sawyer then, Panda now" in warning
        caplog.clear()
        check_world(then(episode_length=7, perturbation="light"), LIFT, {"mujoco": "3.8.1"}, "The policy was trained")
        check_world({}, LIFT, {"mujoco": "3.8.1"}, "The policy was trained")  # nothing is known of it
        assert not caplog.records
