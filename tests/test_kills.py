"""Jobs of every kind, killed at random moments: what was finished stays, what was half done is not taken for finished.

`PIXIO_KILLS=1000 PIXIO_KILLS_FILE=kills.jsonl uv run pytest -n 0 -m slow tests/test_kills.py` kills until the file has so many
lines, over all jobs, and goes on from those that are there; `python tests/test_kills.py kills.jsonl` makes the table.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent / "helpers"))
from forked_scripts import Program
from small_jobs import JOBS, Finished, make_inputs

KILLS = int(os.environ.get("PIXIO_KILLS", "16"))
VICTIMS = ("the program", "the program", "all of its processes", "a worker")
ENOUGH = 900  # seconds for what takes one to a few, on a machine with much other work
SCRIPT = str(Path(__file__).parent / "helpers" / "small_jobs.py")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    make_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One line for each kill, of this run and earlier ones."""
    return Path(os.environ.get("PIXIO_KILLS_FILE", tmp_path_factory.mktemp("kills") / "kills.jsonl")).absolute()


def processes_of(program: Program) -> list[int]:
    """Return the processes of a program but itself: those of its session, and its workers, whom a server has forked."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent, _, session = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        pid = int(stat.parent.name)
        server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined] (nothing else tells)
        if state != "Z" and pid != program.pid and (int(session) == program.pid or int(parent) == server):
            found.append(pid)
    return found


def wait_until_gone(program: Program) -> None:
    deadline = time.monotonic() + ENOUGH
    while left := processes_of(program):
        commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in left if Path(f"/proc/{pid}").exists()]
        assert time.monotonic() < deadline, f"processes outlive their program: {commands}"
        time.sleep(0.02)


def ended(program: Program) -> int:
    """Wait for the end of a program; one that hangs writes where."""
    deadline = time.monotonic() + ENOUGH
    while program.is_running:
        if time.monotonic() > deadline:
            os.kill(program.pid, signal.SIGABRT)  # faulthandler answers with what the threads are at
            raise AssertionError(f"still running after {ENOUGH} s:\n{program.ended(10).stderr}")
        time.sleep(0.01)
    done = program.ended()
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode


def kill(program: Program, chance: random.Random, after: float) -> str | None:
    """Kill a program, or one of its processes, and wait until all have ended; return whom, None if it was faster."""
    deadline = time.monotonic() + after
    while program.is_running and time.monotonic() < deadline:
        time.sleep(0.005)
    victim, workers = chance.choice(VICTIMS), processes_of(program)
    if not program.is_running or (victim == "a worker" and not workers):
        ended(program)
        return None
    if victim == "a worker":
        os.kill(chance.choice(workers), signal.SIGKILL)
        code = ended(program)
        assert code in (0, 2), f"it ended with {code}:\n{program.output}"
    else:
        for pid in [program.pid, *(workers if victim == "all of its processes" else ())]:
            os.kill(pid, signal.SIGKILL)
        program.ended(ENOUGH)
    wait_until_gone(program)
    return victim


def lost(before: Finished, after: Finished) -> list[str]:
    return [name for name, digest in before.items() if after.get(name) != digest and not name.startswith("loss")]


def wrong(found: Finished, whole: Finished) -> list[str]:
    return [name for name, digest in found.items() if whole.get(name) != digest]


def killed_until_done(name: str, inputs: Path, folder: Path, whole: Finished, seconds: float) -> Iterator[dict]:
    """Start a job again and again, and yield what became of it after each kill, until it is done."""
    job, chance = JOBS[name], random.Random()
    before: Finished = {}
    while True:
        delay = chance.uniform(0, 1.1 * seconds)
        with Program((SCRIPT, name, str(inputs), str(folder)), folder.parent) as program:
            victim = kill(program, chance, delay)
            said = program.output
        now = job.finished(folder / "results")
        assert not lost(before, now), f"{name}: lost {lost(before, now)}, {victim} killed after {delay} s:\n{said}"
        assert not wrong(now, whole), f"{name}: half done {wrong(now, whole)}, {victim} killed after {delay} s:\n{said}"
        if victim is not None:
            done = f"{len(now)} of {len(whole)}"
            yield {"job": name, "victim": victim, "seconds": round(delay, 3), "finished": done, "whole": now == whole}
        before = now
        if now == whole:
            return


def hidden_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.name not in (".unfinished",)]


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", JOBS)
def test_nothing_finished_is_lost_and_nothing_half_done_looks_finished(
    name: str, inputs: Path, file: Path, tmp_path: Path
) -> None:
    share = -(-KILLS // len(JOBS))
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    n_killed = sum(line["job"] == name for line in lines)
    seconds = []
    for attempt in ("cold", "whole"):
        start = time.monotonic()
        with Program((SCRIPT, name, str(inputs), str(tmp_path / attempt)), tmp_path) as program:
            assert ended(program) == 0, program.output
        seconds.append(time.monotonic() - start)
    whole = JOBS[name].finished(tmp_path / "whole" / "results")
    assert whole
    assert whole == JOBS[name].finished(tmp_path / "cold" / "results")
    while n_killed < share:
        folder = tmp_path / "killed"
        for record in killed_until_done(name, inputs, folder, whole, seconds[1]):
            n_killed += 1
            with file.open("a") as stream:
                stream.write(json.dumps(record) + "\n")
            if n_killed == share:
                break
        with Program((SCRIPT, name, str(inputs), str(folder)), tmp_path) as program:
            assert ended(program) == 0, program.output
        assert JOBS[name].finished(folder / "results") == whole
        assert not hidden_in(folder)
        assert not list((folder / "temporary").iterdir())
        shutil.rmtree(folder)


if __name__ == "__main__":
    lines = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    print(
        "| job | kills | of the program | of all its processes | of a worker | which came too late |\n"
        + "|---" * 6
        + "|"
    )
    for job in [*JOBS, None]:
        of_job = [line for line in lines if job in (None, line["job"])]
        by_victim = [str(sum(line["victim"] == victim for line in of_job)) for victim in dict.fromkeys(VICTIMS)]
        n_whole = sum(line["whole"] for line in of_job)
        print(f"| {job or 'all'} | {len(of_job)} | {' | '.join(by_victim)} | {n_whole} |")
