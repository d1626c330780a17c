"""An arm is never left moving: in every mode, with the policy here or on a server, whatever fails.

`pytest -n 0 -s` prints the table of `helpers/ways_out.py`: for each fault what was sent last, when, and what ended the drive.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from recorded_robot import RATE, Recorded, chunk, raising
from runtime_policies import Counting
from ways_out import CELLS, FACTOR, HEADER, METADATA, MODES, Cell, Left, commands, drive, leave_all

from pixio_robot.common.errors import UserError


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Cell, Left]]:
    """Every cell that a test of this run looks at."""
    asked = [item.callspec.params.get("cell") for item in request.session.items if hasattr(item, "callspec")]
    left = leave_all([cell for cell in CELLS if cell in asked], tmp_path_factory.mktemp("ways_out"))
    yield left
    print("\n".join(["", HEADER, *(left[cell].row() for cell in CELLS if cell in left)]))


@pytest.mark.parametrize("cell", CELLS, ids=["-".join(cell) for cell in CELLS])
def test_the_last_thing_sent_is_a_hold(table: dict[Cell, Left], cell: Cell) -> None:
    left = table[cell]
    check_end(left)
    check_held(left)
    if left.cell[0] == "gap":
        check_gap(left)


def check_end(left: Left) -> None:
    """The program ended as it should, by one sentence if by any; the robot was disconnected once, and all within a second."""
    assert left.happened, left.said
    fault = left.fault
    assert left.exit_code == fault.exit_code, left.said
    assert (left.sentence is None) == (fault.ends is None), left.sentence
    if fault.ends is not None:
        assert fault.ends in (left.sentence or "")
        assert len((left.sentence or "").splitlines()) == 1
    names = [call.name for call in left.calls]
    assert names[0] == "connect" and names[-1] == "disconnect" and names.count("disconnect") == 1
    assert left.prompt


def check_held(left: Left) -> None:
    """A hold was sent last, and nothing was outside of the limits."""
    sent = [call for call in left.calls if call.action is not None]
    actions = np.array([call.action for call in sent])
    assert np.isfinite(actions).all()
    assert actions[-1][0] == 0 and (actions[-1] == [0, *actions[-2][1:]]).all(), actions[-2:]
    assert (np.abs(np.diff(actions[:, 1], prepend=0)) <= FACTOR * 0.02 + 1e-6).all()
    assert (actions >= np.array([0, -5, 0])).all() and (actions <= np.array([FACTOR * 0.5, 5, 10]) + 1e-6).all()
    assert commands(sent)


def check_gap(left: Left) -> None:
    """The robot held, and no command was sent that was older than the gap, nor two in the same instant."""
    after = [call for call in left.robot if call.action is not None and call.time > left.struck[0]]
    assert not commands(after[:1])
    assert (np.diff([call.time for call in commands(left.calls)]) > 0.4 / RATE).all()


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
