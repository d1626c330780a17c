"""The table of ways out of a drive: every fault, in every mode, with the policy here or on a server.

Each cell is a program of its own, and so is its server, six cells at a time: a cell mostly waits. What the robot was asked
for, and when the fault struck, is noted by the programs themselves, on the clock that all of them share.
"""

import contextlib
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
from forked import FORK
from policy_servers import serving
from recorded_robot import DESCRIBED, RATE, Call, Recorded, chunk
from runtime_policies import Counting

from pixio_robot.common.errors import UserError
from pixio_robot.deployment.artifact.metadata import KEYS, check_metadata
from pixio_robot.deployment.remote.client import RemotePolicy
from pixio_robot.deployment.remote.server import PolicyServer
from pixio_robot.deployment.runtime import Controller, Limits, WallClock, guarded, run_episode

MODES = ("synchronous", "ensemble", "asynchronous")
PLACES = ("here", "server")
FACTOR = 1.5  # of the largest step
METADATA = check_metadata({**dict.fromkeys(KEYS), **DESCRIBED}, "this test")
CELL_SECONDS = 60
_AT_ONCE, _BEAT, _MOST_AGAIN = 6, 0.01, 20


@dataclass(frozen=True)
class Fault:
    """One line of the table."""

    call: str = ""
    """The robot's call in which it strikes, or `chunk`: the policy's."""
    does: Callable[[int, BaseProcess | None], Any] = lambda count, server: None
    """What happens there, given how many such calls came before, and the server; returns a chunk where it strikes the policy."""
    first: int = 3
    """Of such calls from the policy's third command on, which on a busy machine may come late, the first that it strikes."""
    last: int = 1 << 30
    ends: str | None = None
    """What the sentence at the end says; None where the drive goes on until its time is over."""
    exit_code: int = 0
    """Of the program."""
    goes_on: bool = False
    """Whether the policy's commands are sent after the fault."""
    seconds: float = CELL_SECONDS
    call_seconds: float = 10
    """Longest time that a call of the driver may take."""


def raises(error: BaseException) -> Callable[[int, Any], Any]:
    def does(count: int, server: object) -> None:
        raise error

    return does


def hangs(count: int, server: object) -> None:
    threading.Event().wait()


def answers(**changed: float) -> Callable[[int, Any], np.ndarray]:
    return lambda count, server: chunk(count, **changed)


def ends_by(number: signal.Signals, exit_code: int) -> Fault:
    """Return a signal that comes somewhere within a control period."""

    def does(count: int, server: object) -> None:
        within = np.random.default_rng().random() / RATE
        threading.Timer(within, os.kill, (os.getpid(), number)).start()

    return Fault("observe", does, last=3, exit_code=exit_code)


def kills_server(count: int, server: BaseProcess | None) -> None:
    assert server is not None
    server.kill()


_HANGS = "did not return within 0.5 s"
TABLE = {
    # fault:                 where it strikes, what happens, what ends it; the last thing sent is always a hold
    "the end": Fault(seconds=2),
    "exception in observe": Fault("observe", raises(KeyError("motor 3")), ends="not be read for"),
    "one bad look": Fault("observe", raises(OSError("no packet")), last=4, goes_on=True),
    "exception in send": Fault("send", raises(ZeroDivisionError("mm")), ends="takes no more actions"),
    "exit in send": Fault("send", raises(SystemExit(0)), ends="wanted to end the program"),
    "hang in observe": Fault("observe", hangs, last=3, ends=_HANGS, call_seconds=0.5),
    "hang in send": Fault("send", hangs, last=3, ends=_HANGS, call_seconds=0.5),
    "policy fails": Fault("chunk", raises(LookupError("no such policy")), first=0),
    "policy hangs": Fault("chunk", hangs, first=0),
    "NaN": Fault("chunk", answers(arm=float("nan")), first=0),
    "jump": Fault("chunk", answers(arm=1000.0), first=0, goes_on=True),
    "gap": Fault("observe", lambda count, server: time.sleep(0.3), last=3, goes_on=True),
    "SIGINT": ends_by(signal.SIGINT, 1),
    "SIGTERM": ends_by(signal.SIGTERM, -signal.SIGTERM),
    "SIGHUP": ends_by(signal.SIGHUP, -signal.SIGHUP),
    "SIGQUIT": ends_by(signal.SIGQUIT, -signal.SIGQUIT),
    "SIGTSTP": ends_by(signal.SIGTSTP, 1),
    "SIGKILL of the server": Fault("observe", kills_server, last=3),
}

type Cell = tuple[str, str, str]
CELLS: list[Cell] = [
    (name, mode, place)
    for name, mode, place in itertools.product(TABLE, MODES, PLACES)
    if place == "server" or TABLE[name].does is not kills_server
]


@dataclass(frozen=True)
class Left:
    """How a cell's program left its robot."""

    cell: Cell
    calls: list[Call]
    sentence: str | None
    """Of its `UserError`."""
    exit_code: int | None
    said: str
    """On its terminal."""
    late: list[tuple[float, float]]
    """When the machine let another program, which only slept, wait for a processor, and for how many seconds."""

    @property
    def fault(self) -> Fault:
        """What struck."""
        return TABLE[self.cell[0]]

    @property
    def struck(self) -> list[float]:
        """Each time that it did."""
        return [call.time for call in self.calls if call.name == "struck"]

    @property
    def happened(self) -> bool:
        """Whether the policy drove, and the fault struck."""
        return bool(commands(self.calls)) and bool(self.fault.call) == bool(self.struck)

    @property
    def robot(self) -> list[Call]:
        """The robot's calls."""
        return [call for call in self.calls if call.name not in ("struck", "over")]

    @property
    def prompt(self) -> bool:
        """Whether nothing that shall take at most a second took longer, of a machine that is there for it."""
        return all(
            until - since <= 1 + sum(late for when, late in self.late if since <= when <= until + late)
            for since, until in self._waits()
        )

    def _waits(self) -> Iterator[tuple[float, float]]:
        """Return what shall take at most a second: from when to when."""
        event = max(call.time for call in self.calls if call.name in ("struck", "over"))
        yield event, self.calls[-1].time
        sent = [call for call in self.calls if call.action is not None]
        yield from ((call.time, later.time) for call, later in itertools.pairwise(sent) if commands([call]))
        last = max(call.time for call in commands(sent))
        for struck in [] if self.fault.goes_on else self.struck[:1]:
            yield struck, last
            yield struck, min(call.time for call in sent if call.time > last)

    def row(self) -> str:
        """Return the cell's line."""
        name, mode, place = self.cell
        event = (self.struck or [call.time for call in self.calls if call.name == "over"])[0]
        sent = [call for call in self.calls if call.action is not None]
        moving = commands(sent)[-1].time
        hold = next(call for call in sent if call.time > moving)
        numbers = "/".join(f"{number:g}" for number in np.round(sent[-1].action or (), 3))
        times = [
            f"{1000 * (moment - event):+6.0f}" for moment in (moving, hold.time, sent[-1].time, self.calls[-1].time)
        ]
        end = self.sentence or ("" if self.exit_code == 0 else f"ends with {self.exit_code}")
        return f"{name:22}{mode:13}{place:7}{' '.join(times)}  {numbers:14} {end[:60]}"


HEADER = (
    f"{'fault':22}{'mode':13}{'policy':7}ms after it: the policy's last command, the hold, the last hold, disconnect; "
    "the last thing sent; the end"
)


def commands(calls: Sequence[Call]) -> list[Call]:
    """Return what the policy sent."""
    return [call for call in calls if call.action is not None and call.action[0] > 0]


def drive(
    policy: Any, robot: Recorded, mode: str, seconds: float = CELL_SECONDS, call_seconds: float = 10
) -> Controller:
    """Drive as the job does, until the robot says that it is over."""
    clock = WallClock()
    limits = Limits(policy.metadata, step_factor=FACTOR, ramp_steps=5)
    controller = Controller(policy, mode, clock, limits=limits)
    with guarded(robot, controller, call_seconds) as guard:
        run_episode(guard, controller, clock, seconds=seconds)
        robot.note("over")
    return controller


def leave_all(cells: Sequence[Cell], folder: Path) -> dict[Cell, Left]:
    """Run cells' programs, and return how each left its robot.

    This process does nothing but sleep meanwhile, and notes how late the machine lets it go on. A cell in which the policy
    never came to drive, or the fault to strike, or what takes a moment took a second, is tried again: some machines leave it
    no time.
    """
    again = itertools.count()
    waiting, left, places = list(cells), dict[Cell, Left](), itertools.count()
    running: dict[Cell, tuple[BaseProcess, Path, float]] = {}
    late: list[tuple[float, float]] = []
    while waiting or running:
        while waiting and len(running) < _AT_ONCE:
            cell, own = waiting.pop(0), folder / str(next(places))
            own.mkdir()
            process = FORK.Process(target=_program, args=(cell, own))
            process.start()
            running[cell] = process, own, time.monotonic() + 2 * CELL_SECONDS
        asked = time.monotonic()
        time.sleep(_BEAT)
        late.append((time.monotonic(), time.monotonic() - asked - _BEAT))
        for cell, (process, own, deadline) in list(running.items()):
            if process.exitcode is None and time.monotonic() < deadline:
                continue
            left[cell] = _left(cell, own, process.exitcode, late)
            process.kill()
            process.join()
            del running[cell]
            if not (left[cell].happened and left[cell].prompt) and next(again) < _MOST_AGAIN:
                waiting.append(cell)
    return left


def _left(cell: Cell, folder: Path, exit_code: int | None, late: list[tuple[float, float]]) -> Left:
    said = (folder / "said").read_text()
    sentence = json.loads((folder / "sentence").read_text()) if (folder / "sentence").exists() else None
    return Left(cell, Recorded(folder / "calls").calls, sentence, exit_code, said, late)


def _program(cell: Cell, folder: Path) -> None:
    with (folder / "said").open("w") as said:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__  # not what pytest listens to
    # What runs in a shell's background, or under nohup, ignores some; a terminal's programs do not.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
        signal.signal(number, signal.SIG_DFL)
    name, mode, place = cell
    fault, server = TABLE[name], None
    robot = Recorded(folder / "calls", lambda calls: fault.seconds == CELL_SECONDS and _is_enough(fault, calls))

    drives_since: list[int] = []

    def strikes(count: int, otherwise: Any = None) -> Any:
        if not drives_since and len(commands(robot.calls)) >= 3:
            drives_since.append(count)
        if not drives_since or not fault.first <= count - drives_since[0] <= fault.last:
            return otherwise
        robot.note("struck")
        return fault.does(count, server)

    if fault.call == "chunk":
        policy = Counting(METADATA, lambda count: strikes(count, chunk(count)))
    else:
        policy = Counting(METADATA, chunk)
        robot.troubles[fault.call] = strikes
    try:
        with contextlib.ExitStack() as stack:
            if place == "server":
                server, address = stack.enter_context(_serving_elsewhere(policy))
            asked = policy if place == "here" else stack.enter_context(RemotePolicy(f"ws://{address}"))
            drive(asked, robot, mode, fault.seconds, fault.call_seconds)
    except UserError as error:
        (folder / "sentence").write_text(json.dumps(str(error)))


@contextlib.contextmanager
def _serving_elsewhere(policy: Counting) -> Iterator[tuple[BaseProcess, str]]:
    """Serve in a process of its own, which ends with this one; gives it, and host and port."""
    ours, theirs = FORK.Pipe()
    client = os.getpid()

    def serve() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with serving(PolicyServer(policy)) as address:
            theirs.send(address)
            while os.getppid() == client:
                time.sleep(0.2)
            os._exit(0)  # whether a policy hangs or not

    server = FORK.Process(target=serve)
    server.start()
    try:
        assert ours.poll(CELL_SECONDS)
        yield server, ours.recv()
    finally:
        server.kill()
        server.join()


def _is_enough(fault: Fault, calls: list[Call]) -> bool:
    """Whether what comes after a fault was seen: commands again, or the robot held for long."""
    struck = [place for place, call in enumerate(calls) if call.name == "struck"]
    if not struck or fault.ends is not None or fault.exit_code:
        return False
    after = calls[struck[0] if fault.call == "chunk" else struck[-1] :]
    if fault.goes_on:
        return len(commands(after)) > 10
    return len(after) > 30 and not commands(calls[-15:])
