"""An arm is never left moving: in every mode, with the policy here or on a server, whatever fails.

One line for each fault: what it does to the robot or to the policy, what was sent last, and what ends the drive.
"""

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import FORK
from policy_servers import serving
from recorded_robot import DESCRIBED, RATE, Call, Recorded, chunk, hanging, raising
from runtime_policies import Counting

from pixio_robot.common.errors import UserError
from pixio_robot.deployment.artifact.metadata import KEYS, check_metadata
from pixio_robot.deployment.remote.client import RemotePolicy
from pixio_robot.deployment.remote.server import PolicyServer
from pixio_robot.deployment.runtime import Controller, Limits, WallClock, guarded, run_episode

MODES = ("synchronous", "ensemble", "asynchronous")
FACTOR = 1.5
HANGS_AFTER = 0.2  # seconds of a driver's call
METADATA = check_metadata({**dict.fromkeys(KEYS), **DESCRIBED}, "this test")
over = threading.Event()


@dataclass(frozen=True)
class Fault:
    """One line of the table."""

    happens: dict[str, Callable[[int], Any]]
    """By the robot's call, or `chunk`: what the policy answers."""
    ends: str | None = None
    """What the sentence at the end says; None where the drive goes on until its time is over."""
    goes_on: bool = True
    """Whether the policy's commands are sent after the fault, where the drive goes on."""
    seconds: float = 60


def bad_after(number: int, **changed: float) -> Callable[[int], np.ndarray]:
    return lambda count: chunk(count, **(changed if count >= number else {}))


def failing_after(count: int) -> np.ndarray:
    if count >= 2:
        raise LookupError("no such policy")
    return chunk(count)


def hanging_after(count: int) -> np.ndarray:
    if count >= 2:
        over.wait()
    return chunk(count)


def gap(count: int) -> None:
    if count == 10:
        time.sleep(0.75 * HANGS_AFTER)


TABLE = {
    # fault:                  what happens                                       the last is always a hold; it ends by
    "the end": Fault({}, seconds=0.5),
    "exception in observe": Fault({"observe": raising(8, KeyError("motor 3"))}, "not be read for", False),
    "one bad look": Fault({"observe": raising(8, OSError("no packet"), last=9)}),
    "exception in send": Fault({"send": raising(8, ZeroDivisionError("mm"))}, "takes no more actions", False),
    "exit in send": Fault({"send": raising(8, SystemExit(0), last=8)}, "wanted to end the program", False),
    "hang in observe": Fault({"observe": hanging(8, over)}, "did not return within 0.2 s", False),
    "hang in send": Fault({"send": hanging(8, over)}, "did not return within 0.2 s", False),
    "policy fails": Fault({"chunk": failing_after}, None, False),
    "policy hangs": Fault({"chunk": hanging_after}, None, False),
    "NaN": Fault({"chunk": bad_after(2, arm=float("nan"))}, None, False),
    "jump": Fault({"chunk": bad_after(2, arm=1000.0)}),
    "gap": Fault({"observe": gap}),
}


@contextmanager
def placed(policy: Counting, place: str) -> Iterator[Any]:
    """Give the policy as the runtime meets it: as it is, or through a server."""
    if place == "here":
        yield policy
        return
    with serving(PolicyServer(policy)) as address, RemotePolicy(f"ws://{address}") as remote:
        yield remote
        over.set()  # or the server would wait for a policy that hangs


def drive(policy: Any, robot: Recorded, mode: str, seconds: float) -> Controller:
    clock = WallClock()
    limits = Limits(policy.metadata, step_factor=FACTOR, ramp_steps=5)
    controller = Controller(policy, mode, clock, limits=limits)
    with guarded(robot, controller, HANGS_AFTER) as guard:
        run_episode(guard, controller, clock, seconds=seconds)
    return controller


def check_left(calls: list[Call]) -> None:
    """A hold was sent last, then the robot was disconnected, and nothing was outside of the limits before."""
    assert calls[0].name == "connect" and calls[-1].name == "disconnect"
    assert [call.name for call in calls].count("disconnect") == 1
    sent = [call for call in calls if call.action is not None]
    actions = np.array([call.action for call in sent])
    assert np.isfinite(actions).all()
    assert actions[-1][0] == 0 and (actions[-1] == [0, *actions[-2][1:]]).all(), actions[-2:]
    assert (np.abs(np.diff(actions[:, 1], prepend=0)) <= FACTOR * 0.02 + 1e-6).all()
    assert (actions >= np.array([0, -5, 0])).all() and (actions <= np.array([FACTOR * 0.5, 5, 10]) + 1e-6).all()
    moving = [(call.time, later.time) for call, later in itertools.pairwise(sent) if call.action[0] > 0]  # type: ignore[index]
    assert max(until - since for since, until in moving) < 1  # second: no command stands longer
    assert calls[-1].time - sent[-1].time < 1


def cases(names: list[str], quick: tuple[str, ...]) -> list[Any]:
    return [
        pytest.param(mode, place, name, marks=[] if place in quick else pytest.mark.slow, id=f"{name}-{mode}-{place}")
        for name in names
        for mode in MODES
        for place in ("here", "server")
    ]


@pytest.mark.parametrize(("mode", "place", "name"), cases(list(TABLE), ("here",)))
def test_the_last_thing_sent_is_a_hold(mode: str, place: str, name: str, tmp_path: Path) -> None:
    over.clear()
    fault = TABLE[name]
    policy = Counting(METADATA, fault.happens.get("chunk", chunk))

    def is_enough(calls: list[Call]) -> bool:
        """Whether what comes after the fault was seen: commands again, or the robot held for long."""
        looks = [place for place, call in enumerate(calls) if call.name == "observe"]
        if name == "the end" or fault.ends is not None or len(looks) < 13 or len(policy.seen) < 3:
            return False
        return len(commands(calls[looks[12] :])) > 2 if fault.goes_on else not commands(calls[-20:])

    robot = Recorded(
        tmp_path / "calls", is_enough, **{key: call for key, call in fault.happens.items() if key != "chunk"}
    )
    ends = nullcontext() if fault.ends is None else pytest.raises(UserError, match=fault.ends)
    try:
        with placed(policy, place) as asked, ends as caught:
            drive(asked, robot, mode, fault.seconds)
    finally:
        over.set()
    assert caught is None or len(str(caught.value).splitlines()) == 1
    calls = robot.calls
    check_left(calls)
    if fault.ends is None and name != "the end":
        assert is_enough(calls[:-1])
    if name == "gap":
        check_gap(calls)


def commands(calls: list[Call]) -> list[Call]:
    """Return what the policy sent."""
    return [call for call in calls if call.action is not None and call.action[0] > 0]


def check_gap(calls: list[Call]) -> None:
    """The robot held, and no command was sent that was older than the gap, nor two in the same instant."""
    looks = [place for place, call in enumerate(calls) if call.name == "observe"]
    after = [call.action for call in calls[looks[10] :] if call.action is not None]
    assert after[0] is not None and after[0][0] == 0
    between = np.diff([call.time for call in commands(calls)])
    assert (between > 0.4 / RATE).all()


@pytest.mark.parametrize(
    ("mode", "place", "name"), cases(["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGTSTP"], ("here",))
)
def test_a_signal_holds_before_the_process_ends(mode: str, place: str, name: str, tmp_path: Path) -> None:
    robot = Recorded(tmp_path / "calls")
    with (
        serving(PolicyServer(Counting(METADATA, chunk))) if place == "server" else nullcontext() as address,
        running(
            lambda: drive(RemotePolicy(f"ws://{address}") if address else Counting(METADATA, chunk), robot, mode, 60)
        ) as process,
    ):
        wait_for(lambda: (tmp_path / "calls").exists() and len(commands(robot.calls)) > 5)
        asked = time.monotonic()
        os.kill(process.pid or 0, getattr(signal, name))
        process.join(timeout=60)
    check_left(robot.calls)
    assert robot.calls[-1].time - asked < 1
    assert process.exitcode == (1 if name in ("SIGINT", "SIGTSTP") else -getattr(signal, name))


@pytest.mark.parametrize("mode", MODES)
def test_a_server_that_is_killed_holds(mode: str, tmp_path: Path) -> None:
    ours, theirs = FORK.Pipe()
    robot = Recorded(tmp_path / "calls", lambda calls: bool(commands(calls)) and not commands(calls[-20:]))

    def serve() -> None:
        with serving(PolicyServer(Counting(METADATA, chunk))) as address:
            theirs.send(address)
            time.sleep(60)

    with running(serve) as server:
        assert ours.poll(60)
        policy = RemotePolicy(f"ws://{ours.recv()}")
        killing = threading.Thread(target=lambda: (wait_for(lambda: len(commands(robot.calls)) > 5), server.kill()))
        (tmp_path / "calls").touch()
        killing.start()
        drive(policy, robot, mode, 60)
        killing.join()
    check_left(robot.calls)
    assert not commands(robot.calls[-20:])


def test_a_robot_that_cannot_be_connected_is_let_go_in_one_sentence(tmp_path: Path) -> None:
    robot = Recorded(tmp_path / "calls", connect=raising(0, OSError("no port")), disconnect=raising(0, OSError("none")))
    with pytest.raises(UserError, match=r"^The robot could not be connected: OSError: no port\.$"):
        drive(Counting(METADATA, chunk), robot, "synchronous", 60)
    assert [call.name for call in robot.calls] == ["connect", "disconnect"]


def test_a_robot_that_cannot_be_held_is_said_to_be_in_danger(tmp_path: Path) -> None:
    """The driver takes nothing more, a hold included."""
    robot = Recorded(tmp_path / "calls", send=raising(8, OSError("cable")), disconnect=raising(0, OSError("cable")))
    sentence = r"takes no more actions .*not left as it should be: hold failed \(.*; disconnect failed \(.*Look at it"
    with pytest.raises(UserError, match=sentence):
        drive(Counting(METADATA, chunk), robot, "synchronous", 60)
    assert robot.calls[-1].name == "disconnect"


class Stopping(Recorded):
    """A robot whose driver has a stop of its own."""

    def safe_stop(self) -> None:
        self._note("safe_stop")


def test_a_robot_with_a_stop_of_its_own_is_stopped_by_it(tmp_path: Path) -> None:
    robot = Stopping(tmp_path / "calls", observe=raising(8, SystemExit(1)))
    with pytest.raises(UserError, match="wanted to end the program"):
        drive(Counting(METADATA, chunk), robot, "synchronous", 60)
    assert [call.name for call in robot.calls[-3:]] == ["send", "safe_stop", "disconnect"]
    assert robot.calls[-3].action is not None
    assert robot.calls[-3].action[0] == 0


@pytest.mark.parametrize("mode", MODES)
def test_periods_that_are_too_long_are_said_at_once_and_never_caught_up(
    mode: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said: list[int] = []  # lines in the log at every look

    def slow(count: int) -> None:
        said.append(caplog.text.count("too long"))
        time.sleep(1.5 / RATE)

    robot = Recorded(tmp_path / "calls", observe=slow)
    report = drive(Counting(METADATA, chunk), robot, mode, 1).report
    assert report.steps < RATE  # what is over after a second is not a number of periods
    assert report.overruns and said[-1]
    assert (np.diff([call.time for call in commands(robot.calls)]) > 0.4 / RATE).all()


@contextmanager
def running(function: Callable[[], object]) -> Iterator[Any]:
    def with_a_terminals_signals() -> None:  # what runs in a shell's background, or under nohup, ignores some
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for one in (signal.SIGHUP, signal.SIGQUIT):
            signal.signal(one, signal.SIG_DFL)
        function()

    process = FORK.Process(target=with_a_terminals_signals)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)
