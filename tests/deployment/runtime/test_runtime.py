"""The robot's side: three modes against a script, holds and their reports, refusals before the first action."""

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.policies.act.modeling_act import ACTTemporalEnsembler
from runtime_policies import CAMERA, Counting, Gated, metadata, observation

from pixio_robot.common.errors import UserError
from pixio_robot.deployment.runtime import CameraSource, Controller, HoldReason, LockStepClock, Observation, check_robot
from pixio_robot.deployment.runtime.observation import check_stacked


def places(controller: Controller, steps: range) -> list[float]:
    """Return the first number of each command; 99 where none is sent."""
    actions = [controller.act(observation(step)).action for step in steps]
    return [99.0 if action is None else round(float(action[0]), 2) for action in actions]


def test_synchronous_executes_the_beginning_of_every_chunk_and_reads_the_history() -> None:
    policy = Counting(metadata(observation_horizon=2))
    controller = Controller(policy, "synchronous", LockStepClock())
    assert places(controller, range(7)) == [0, 0.01, 0.02, 1, 1.01, 1.02, 2]
    states = [stacked["observation.state"][0, :, 0].tolist() for stacked in policy.seen]
    assert states == [[0, 0], [2, 3], [5, 6]]  # the first observation stands for the one before it
    assert policy.seen[1][CAMERA].shape == (1, 2, 24, 32, 3)
    controller.reset()
    assert places(controller, range(3)) == [0, 0.01, 0.02]  # chunks are numbered anew
    assert policy.seen[-1]["observation.state"][0, :, 0].tolist() == [0, 0]


def test_a_policy_of_several_tasks_is_told_which() -> None:
    policy = Counting(metadata(tasks=["open the door", "close the door"]))
    controller = Controller(policy, "synchronous", LockStepClock())
    for task, message in ((None, "needs to be told which"), ("open the dor", "is none of them")):
        with pytest.raises(UserError, match=f"does 2 tasks.*{message}.*open the door; close the door"):
            controller.reset(task=task)
    controller.reset(seed=5, task="close the door")
    places(controller, range(4))
    assert [stacked["task"].tolist() for stacked in policy.seen] == [[1], [1]] and policy.seeds == [5, 5]
    check_stacked(policy.metadata, policy.seen[-1])
    for wrong in (None, np.array([2]), np.array([-1]), np.array([0.0]), np.array([[0]])):
        with pytest.raises(UserError, match=r"task brings .* reads int64 \(1,\) below 2"):
            check_stacked(policy.metadata, {**policy.seen[-1], "task": wrong})
    single = Counting(metadata())
    Controller(single, "synchronous", LockStepClock()).reset(task="open the door")  # one task needs no telling


def test_ensemble_is_that_of_act() -> None:
    chunks = torch.randn(20, 6, 2, generator=torch.Generator().manual_seed(0))
    controller = Controller(Counting(metadata(), lambda number: chunks[number].numpy()), "ensemble", LockStepClock())
    reference = ACTTemporalEnsembler(0.01, 6)
    for step, chunk in enumerate(chunks):
        expected = reference.update(chunk[None])[0].numpy()
        assert controller.act(observation(step)).action == pytest.approx(expected, abs=1e-5)


def test_asynchronous_stitches_chunks_by_time_and_holds_when_one_is_late() -> None:
    policy, clock, executor = Gated(metadata()), LockStepClock(), ThreadPoolExecutor(1)
    controller = Controller(policy, "asynchronous", clock, executor=executor)

    def act(steps: range) -> list[float]:
        actions = []
        for step in steps:
            clock.sleep_until(step / 10)
            actions += places(controller, range(step, step + 1))
        return actions

    def last_look() -> float:
        assert policy.begun.acquire(timeout=60)
        return policy.seen[-1]["observation.state"][0, 0]

    def finish(at: float) -> None:
        clock.sleep_until(at)
        policy.gate.release()
        executor.submit(lambda: None).result(timeout=60)  # the thread is one: what came before is done

    assert act(range(1)) == [99]  # the gripper's last command is not known yet: nothing is sent
    assert last_look() == 0
    assert act(range(1, 2)) == [99]
    finish(at=0.2)  # after 2 periods
    # The robot stood: from action 0 on. The next inference begins 2 periods before 3 actions are over, at step 3.
    assert act(range(2, 4)) == [0, 0.01]
    assert last_look() == 3
    assert act(range(4, 5)) == [0.02]
    finish(at=0.5)
    assert act(range(5, 6)) == [1.02]  # seen at step 3: its actions 0 and 1 have passed
    assert last_look() == 5
    assert act(range(6, 9)) == [1.03, 1.04, 1.05]  # late: the chunk goes on to its end
    assert controller.act(observation(9)).held is HoldReason.LATE_INFERENCE
    finish(at=0.95)  # what it had seen is of no use any more
    clock.sleep_until(1)
    assert controller.act(observation(10)).held is HoldReason.WAITING
    assert last_look() == 10
    finish(at=1.1)
    assert act(range(11, 14)) == [3, 3.01, 3.02]
    assert last_look() == 13
    policy.gate.release()
    executor.shutdown()


@pytest.mark.parametrize(
    ("space", "names", "held"),
    [
        ("delta end effector", ["x", "gripper"], [0, 7]),
        ("delta end effector", None, [0, 0]),
        ("absolute joint positions", None, [0, 7]),
        (None, None, None),
    ],
)
def test_what_holding_means(space: str | None, names: list[str] | None, held: list[float] | None) -> None:
    policy = Counting(metadata(action__space=space, action__names=names))
    controller = Controller(policy, "synchronous", LockStepClock())
    controller.act(observation(0))
    command = controller.act(observation(1, ages={CAMERA: 2.0}))
    assert command.held is HoldReason.STALE_CAMERA
    assert (None if command.action is None else command.action.tolist()) == held


def failing(chunk: int) -> np.ndarray:
    raise ConnectionError("no route to the server")


GOOD = Counting.chunk
TROUBLES: list[tuple[HoldReason, str, dict[str, Any]]] = [
    (HoldReason.STALE_CAMERA, "2.00 s old", {"ages": {CAMERA: 2.0}}),
    (HoldReason.STALE_CAMERA, "nan s old", {"ages": {CAMERA: float("nan")}}),
    (HoldReason.BAD_OBSERVATION, "not finite", {"values": {"observation.state": np.full(2, np.nan, np.float32)}}),
    (HoldReason.BAD_OBSERVATION, "changed from", {"values": {CAMERA: np.zeros((48, 64, 3), np.uint8)}}),
    (HoldReason.BAD_ACTION, "not finite", {"answer": lambda number: GOOD(number) * np.nan}),
    (HoldReason.BAD_ACTION, "(5, 2), expected (6, 2)", {"answer": lambda number: GOOD(number)[:5]}),
    (HoldReason.FAILED_INFERENCE, "no route to the server", {"answer": failing}),
]


@pytest.mark.parametrize("mode", ["synchronous", "ensemble"])
@pytest.mark.parametrize(("reason", "sentence", "trouble"), TROUBLES)
def test_trouble_holds_is_reported_once_and_passes(
    mode: str, reason: HoldReason, sentence: str, trouble: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    answer = trouble.get("answer", GOOD)
    in_trouble = False
    policy = Counting(metadata(executed_actions=1), lambda number: (answer if in_trouble else GOOD)(number))
    controller = Controller(policy, mode, LockStepClock())
    seen = {name: value for name, value in trouble.items() if name != "answer"}
    with caplog.at_level(logging.INFO):
        assert controller.act(observation(0)).held is None
        in_trouble = True
        for step in (1, 2):
            command = controller.act(observation(step, **seen))
            assert command.held is reason
            assert command.action is not None and command.action.tolist() == [0, 7]
        in_trouble = False
        after = controller.act(observation(3))
    assert after.held is None and after.action is not None
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1 and sentence in warnings[0] and str(reason) in warnings[0]
    assert controller.report.holds[reason] == 2
    assert str(reason) in controller.report.summary()


@pytest.mark.parametrize("mode", ["synchronous", "ensemble", "asynchronous"])
def test_an_inference_that_outlasts_its_actions_holds(mode: str) -> None:
    clock = LockStepClock()

    def slowly(number: int) -> np.ndarray:
        clock.sleep_until(clock.now() + 0.61)
        return GOOD(number)

    executor = ThreadPoolExecutor(1)
    controller = Controller(Counting(metadata(), slowly), mode, clock, executor=executor)
    held = []
    for step in range(3):
        held.append(controller.act(observation(step)).held)
        executor.submit(lambda: None).result(timeout=60)
    assert HoldReason.LATE_INFERENCE in held and None not in held


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({CAMERA: None}, "reads observation.images.front, but the observation has"),
        ({CAMERA: np.zeros((24, 32, 3), np.float32)}, "float32 .* reads uint8 frames"),
        ({CAMERA: np.zeros((3, 24, 32), np.uint8)}, "reads uint8 frames"),
        ({CAMERA: np.zeros((24, 32, 4), np.uint8)}, "reads uint8 frames"),
        ({CAMERA: np.zeros((24, 24, 3), np.uint8)}, "24×24 px, but the artifact reads 24×32 px"),
        ({"observation.state": np.zeros(3, np.float32)}, r"float32 \(3,\), but the artifact reads float32 \(2,\)"),
        ({"observation.state": np.zeros(2)}, r"float64 \(2,\), but"),
        ({"observation.state": np.full(2, np.inf, np.float32)}, "is not finite"),
    ],
)
@pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
def test_what_does_not_fit_is_refused_before_any_action(values: dict[str, Any], message: str, mode: str) -> None:
    policy = Counting(metadata())
    controller = Controller(policy, mode, LockStepClock())
    with pytest.raises(UserError, match=message) as caught:
        controller.act(observation(0, values))
    assert len(str(caught.value).splitlines()) == 1
    assert not policy.seen


def test_actions_stay_within_the_limits() -> None:
    policy = Counting(metadata(action__minimum=[-1.0, -1.0], action__maximum=[0.5, 2.0]))
    controller = Controller(policy, "synchronous", LockStepClock())
    assert [controller.act(observation(step)).action for step in range(4)][3] == pytest.approx([0.5, 2])
    assert controller.report.clipped == 4


def test_an_unknown_mode_and_another_rate_are_refused() -> None:
    with pytest.raises(UserError, match="Did you mean 'asynchronous'"):
        Controller(Counting(metadata()), "async", LockStepClock())
    with pytest.raises(UserError, match="trained at 10 Hz, not 30 Hz"):
        Controller(Counting(metadata()), "ensemble", LockStepClock(), rate=30)
    with pytest.raises(UserError, match="give one with rate="):
        Controller(Counting(metadata(control_rate_hz=None)), "ensemble", LockStepClock())


class Still:
    """A robot that says what it is, and fails where it is asked for more."""

    def __init__(self, cameras: dict[str, CameraSource], state_size: int = 2, action_size: int = 2) -> None:
        self.cameras, self.state_size, self.action_size, self.is_over = cameras, state_size, action_size, False

    def observe(self) -> Observation:
        raise AssertionError("looked at before it was checked")

    def send(self, action: np.ndarray) -> None:
        raise AssertionError(f"was sent {action}")


@pytest.mark.parametrize(
    ("robot", "sentence"),
    [
        (Still({"front": CameraSource(480, 640)}), "the robot offers front"),
        (Still({CAMERA: CameraSource(480, 640, "BGR")}), "delivers BGR, but the artifact was trained on RGB"),
        (Still({CAMERA: CameraSource(480, 480)}), "480×480 px, but the artifact reads 24×32 px or another size"),
        (Still({CAMERA: CameraSource(480, 640)}, state_size=3), "has 3 numbers, but the artifact reads 2: x, y"),
        (
            Still({CAMERA: CameraSource(480, 640)}, action_size=3),
            "takes actions of 3 numbers, but the artifact gives 2",
        ),
    ],
)
def test_a_robot_is_checked_before_the_first_motion(robot: Still, sentence: str) -> None:
    policy = Counting(metadata(state__names=["x", "y"]))
    controller = Controller(policy, "synchronous", LockStepClock())
    check_robot(controller, Still({CAMERA: CameraSource(480, 640), "another": CameraSource(10, 10)}))
    with pytest.raises(UserError, match=sentence) as caught:
        check_robot(controller, robot)
    assert len(str(caught.value).splitlines()) == 1 and not policy.seen
