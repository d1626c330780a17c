"""Folders of runs: a new one named by the time, or that of an interrupted run."""

import datetime
import shutil
from pathlib import Path

from pixio_robot.common.json_lines import read_lines
from pixio_robot.engine.runs import newest_unfinished


def new_run_dir(output_root: Path) -> Path:
    """Make the folder of a new run of train_policy."""
    stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder = output_root / "train_policy"
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in ("", *(f"_{number}" for number in range(2, 100))):
        try:
            (folder / f"{stamp}{suffix}").mkdir()
        except FileExistsError:
            continue
        return folder / f"{stamp}{suffix}"
    raise AssertionError("a hundred runs in one second")


def discard_refused(run_dir: Path) -> None:
    """Remove the folder of a new run that was refused, unless its policy had been built: there is nothing to go on from.

    Left behind, it would be what `last` finds in place of the run that the user means.
    """
    if not any(line["phase"] == "policy" for line in read_lines(run_dir / "log.jsonl")):
        shutil.rmtree(run_dir)


def resumed_run_dir(resume: str, output_root: Path) -> Path:
    """Return the folder of the run to resume: a path, or `last` for the newest unfinished run.

    Raises:
        UserError: There is no unfinished run.
    """
    if resume != "last":
        return Path(resume)
    return newest_unfinished(output_root / "train_policy", "report.html")
