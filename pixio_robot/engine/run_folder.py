"""Folders of runs: named by the user or by the time at which they began, and found again."""

import datetime
import fcntl
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixio_robot.common.errors import UserError
from pixio_robot.common.storage.json_lines import read_lines

CONFIG_FILE = "config.yaml"
LATEST = "latest"
"""Stands for the newest run wherever one is asked for."""
_OURS: set[Path] = set()  # folders whose locks this process holds


def new_run_dir(runs: Path, name: str | None = None, *, empty: bool = False) -> Path:
    """Make the folder of a new run; two that begin in the same instant get two.

    Args:
        runs: Where runs of a job are.
        name: The user's name for it; None takes the time.
        empty: Whether there may be an empty one of that name, left by a process that ended at once.

    Raises:
        UserError: There is one of that name, or it is no name of a folder.
    """
    runs.mkdir(parents=True, exist_ok=True)
    if name is not None:
        if name != Path(name).name or name in ("", ".", ".."):
            raise UserError(f"run={name!r} is no name of a folder: give one without slashes.")
        try:
            (runs / name).mkdir()
        except FileExistsError:
            if not empty or not (runs / name).is_dir() or any((runs / name).iterdir()):
                raise UserError(
                    f"There is a run {runs / name} already: continue it with resume=auto, or choose another name."
                ) from None
        return runs / name
    stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for suffix in ("", *(f"_{number}" for number in range(2, 100))):
        try:
            (runs / f"{stamp}{suffix}").mkdir()
        except FileExistsError:
            continue
        return runs / f"{stamp}{suffix}"
    raise AssertionError("a hundred runs in one second")


def begun_run_dir(runs: Path, name: str | None, resume: str | None, resumed: Path | None) -> Path:
    """Return the folder of the run that is continued or a new one, and keep other processes out of it.

    It is this process's until it ends, however it ends.

    Raises:
        UserError: See `new_run_dir`; or another process works there.
    """
    run_dir = resumed or new_run_dir(runs, name, empty=resume == "auto")
    if resumed is not None and resumed.resolve() in _OURS:  # interrupted and continued by one process, as in a notebook
        return run_dir
    folder = os.open(run_dir, os.O_RDONLY)  # open until the end of the process, and with it the lock is held
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(folder)
        raise UserError(
            f"Another process is at work in {run_dir}: wait for its end or stop it, or give this run another name (run=…)."
        ) from None
    except OSError:  # a file system without locks
        os.close(folder)
    else:
        _OURS.add(run_dir.resolve())
    return run_dir


def run_to_resume(runs: Path, name: str | None, resume: str | None, result: str) -> Path | None:
    """Return the folder of the run that is to be continued; None where a new one is to be begun.

    Args:
        runs: Where runs of the job are.
        name: The user's name for the run, if any.
        resume: None; a folder or the name of one; `last` for the newest unfinished run; or `auto`, which continues the run
            of that name where there is one and begins it where there is none, so that a job script may always say it.
        result: Name of the file that finished runs have.

    Raises:
        UserError: There is no such run, or `auto` has no name to look for.
    """
    if resume is None:
        return None
    if resume == "auto":
        if name is None:
            raise UserError("resume=auto continues the run of a name or begins it: add run=NAME.")
        return runs / name if (runs / name / CONFIG_FILE).is_file() else None
    if name is not None:
        raise UserError(f"run={name} and resume={resume} name two runs: give one of them, or run={name} resume=auto.")
    if resume in ("last", LATEST):
        begun = sorted(runs.glob(f"*/{CONFIG_FILE}"), key=lambda path: path.stat().st_mtime_ns)
        unfinished = [path.parent for path in begun if not (path.parent / result).exists()]
        if not unfinished:
            raise UserError(f"No unfinished run in {runs}: start one without resume=last.")
        return unfinished[-1]
    for folder in (Path(resume), runs / resume):
        if folder.is_dir():
            if not (folder / CONFIG_FILE).is_file():
                raise UserError(f"{folder} is no folder of a run: it has no {CONFIG_FILE}.")
            return folder
    raise UserError(f"There is no run at {resume}: give the folder of an interrupted run, or resume=last.")


def find_run(given: Path, runs: Path) -> Path | None:
    """Return the folder of the run that is meant; None where it is none.

    Args:
        given: A run's folder or its name, or `latest` for the newest.
        runs: Where runs of the job are.

    Raises:
        UserError: The newest is asked for, and there is none.
    """
    if str(given) == LATEST:
        files = (path for path in runs.glob(f"*/{CONFIG_FILE}") if path.is_file())
        found = sorted(files, key=lambda path: path.stat().st_mtime_ns)
        if not found:
            raise UserError(
                f"There is no run in {runs}, of which {LATEST} would be the newest: begin one, or name a folder."
            )
        return found[-1].parent
    return next((folder for folder in (given, runs / given) if (folder / CONFIG_FILE).is_file()), None)


def with_changes(
    saved: Mapping[str, Any], given: Mapping[str, Any], changeable: frozenset[str], run_dir: Path
) -> tuple[dict[str, Any], list[str]]:
    """Return a run's settings with those that its continuation was given, where they can change in the middle.

    Args:
        saved: The settings of the run, nested.
        given: Settings given beside `resume`, by their dotted names.
        changeable: Dotted names of those that can change.
        run_dir: For the message.

    Returns:
        The settings, and what changed in words (`trainer.steps 60 → 99`).

    Raises:
        UserError: Another setting was given another value than the run has.
    """
    settings: dict[str, Any] = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in saved.items()
    }
    changes = []
    for name, value in given.items():
        *groups, key = name.split(".")
        place = settings
        for group in groups:
            place = place.get(group) or {}
        before = place.get(key)
        if before == value:
            continue
        if name not in changeable:
            raise UserError(
                f"{name}={value} is not what {run_dir} was begun with ({before}) and cannot change in the middle of a run: "
                f"leave it out, or start a new run. What can change: {', '.join(sorted(changeable))}."
            )
        place[key] = value
        changes.append(f"{name} {before} → {value}")
    return settings, changes


def discard_refused(run_dir: Path) -> None:
    """Remove the folder of a new run that was refused, unless its policy had been built: there is nothing to go on from.

    Left behind, it would be what `last` finds in place of the run that the user means.
    """
    if not any(line.get("phase") == "policy" for line in read_lines(run_dir / "log.jsonl")):
        shutil.rmtree(run_dir)
