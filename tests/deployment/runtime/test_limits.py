"""What a command may be: steps from where the robot stands and from demonstrations, ranges, holds; starts refused."""

from typing import Any

import numpy as np
import pytest
from recorded_robot import DESCRIBED, Recorded, chunk
from runtime_policies import CAMERA, Counting, metadata, observation

from pixio_robot.common.errors import UserError
from pixio_robot.deployment.runtime import Controller, Guard, HoldReason, Limits, LockStepClock, Observation
from pixio_robot.deployment.runtime.holding import NoActionError

NAMES = ["lift.pos", "turn.pos", "base.vel"]


def described(**changes: Any) -> dict[str, Any]:
    action = {
        **{"size": 3, "names": NAMES, "space": None, "limits_from": "demonstrations"},
        **{"minimum": [0.0, -90.0, 0.1], "maximum": [150.0, 90.0, 0.4]},
        **{"largest_change": [2.0, 0.0, 0.1], "largest_value": [150.0, 90.0, 0.4]},
    }
    state = {"key": "observation.state", "size": 2, "names": ["turn.pos", "lift.pos"]}
    return metadata(action={**action, **changes}, state=state)


def begun(limits: Limits, lift: float = 0.0, turn: float = 0.0) -> Limits:
    limits.begin(np.array([turn, lift], np.float32))
    return limits


def test_the_first_command_is_a_step_from_where_the_robot_stands_and_steps_grow() -> None:
    limits = begun(Limits(described(), step_factor=1.5, ramp_steps=3))
    lifts = [limits.apply(np.array([150.0, 0, 0.3])).sent[0] for _ in range(5)]
    assert lifts == pytest.approx([1, 3, 6, 9, 12])  # a third of 3, two thirds, then all of it
    assert begun(Limits(described(), step=40.0)).apply(np.array([150.0, 0, 9])).sent.tolist() == [
        40,
        0,
        np.float32(0.4),
    ]


def test_what_changed_a_command_is_told() -> None:
    limited = begun(Limits(described(), step_factor=1)).apply(np.array([1.0, 3.0, 0.5]))
    assert limited.slowed.tolist() == [False, True, True]  # what never moved may move as fast as the others
    assert limited.sent.tolist() == [1, 2, np.float32(0.4)]
    assert limited.largest_step.tolist() == [2, 2, 0.4]
    assert begun(Limits(described())).apply(np.array([151.0, 3.0, 0.5])).clipped.tolist() == [True, False, True]


def test_a_velocity_may_always_be_nothing_and_a_hold_is_that() -> None:
    limits = begun(Limits(described(), step_factor=1))
    assert limits.hold() is None  # it stands
    assert limits.apply(np.array([1.0, 0, 0.0])).sent[2] == 0  # demonstrations never drove below 0.1
    limits.apply(np.array([2.0, 0, 0.3]))
    hold = limits.hold()
    assert hold is not None and hold.tolist() == [2, 0, 0]


@pytest.mark.parametrize(("lift", "refused"), [(-1.9, False), (-2.1, True), (151, False), (153, True)])
def test_a_start_further_outside_of_the_range_than_a_step_is_refused(lift: float, refused: bool) -> None:
    limits = Limits(described(), step_factor=1, ramp_steps=10)
    if refused:
        with pytest.raises(NoActionError, match="lift.pos stands at .*, outside of 0 to 150"):
            begun(limits, lift)
        return
    assert 0 <= begun(limits, lift).apply(np.array([lift, 0.0, 0.0])).sent[0] <= 150


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"names": ["a", "b", "c"]}, "not known whether an action .a, b, c. is a place or a motion"),
        ({"names": ["a.pos", "turn.pos", "base.vel"]}, "does not say where a.pos stands"),
        ({"largest_change": None}, "does not say how far its numbers move in a step"),
    ],
)
def test_what_cannot_be_limited_is_not_driven(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Limits(described(**changes), step_factor=1.5)


def test_a_space_in_words_makes_up_for_names() -> None:
    nameless = described(names=None)
    nameless["state"]["names"] = None
    limits = Limits(nameless, action_space="delta", step_factor=1)
    begun(limits).apply(np.array([1.0, 1.0, 0.2]))
    hold = limits.hold()
    assert hold is not None and hold.tolist() == [0, 0, 0]
    named = Limits(nameless, state_names=NAMES[1::-1], action_names=NAMES, step_factor=1)
    assert begun(named, lift=10).apply(np.array([150.0, 0, 0])).sent[0] == 12


def seen(step: int, time: float) -> Observation:
    looked = observation(step, {"observation.state": np.zeros(1, np.float32)})
    return Observation(looked.values, time)


@pytest.mark.parametrize("time", [0.01, float("nan"), float("-inf")])
def test_a_robots_time_that_goes_back_holds(time: float) -> None:
    controller = Controller(
        Counting(DESCRIBED, chunk), "synchronous", LockStepClock(), limits=Limits(DESCRIBED, step_factor=1)
    )
    held = [controller.act(seen(step, at)).held for step, at in enumerate((5.0, 5.02, time, 5.04, 5.06))]
    assert held[:3] == [None, None, HoldReason.BAD_OBSERVATION] and held[-1] is None


def test_frames_that_never_change_are_old(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    controller = Controller(Counting(DESCRIBED, chunk), "synchronous", LockStepClock())
    robot = Recorded(tmp_path / "calls")
    guard = Guard(robot, controller, call_seconds=10)
    now = [0.0]
    monkeypatch.setattr("pixio_robot.deployment.runtime.guard.time.monotonic", lambda: now[0])

    def age(seconds: float) -> float | None:
        now[0] += seconds
        return guard.observe().ages.get(CAMERA)

    assert [age(0.1), age(0.1)] == [None, None]  # a working camera has noise
    robot._random = Still()
    assert [age(0.1), age(0.1), age(0.3)] == [None, pytest.approx(0.1), pytest.approx(0.4)]
    robot.moves_only_when_told = True  # a simulation in which nothing moves is no broken camera
    assert age(1) is None
    guard.leave()


class Still:
    def integers(self, *_: object, **__: object) -> np.ndarray:
        return np.zeros((24, 32, 3), np.uint8)
