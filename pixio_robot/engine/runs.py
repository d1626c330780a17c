"""Run folders, named by the time at which they began."""

from pathlib import Path

from pixio_robot.common.errors import UserError


def newest_unfinished(runs: Path, result: str) -> Path:
    """Return the newest run that has its config but not its result, which comes last.

    Args:
        runs: Folder of the run folders.
        result: Name of the file that finished runs have.

    Raises:
        UserError: There is none.
    """
    begun = sorted(path.parent for path in runs.glob("*/config.yaml"))
    unfinished = [run for run in begun if not (run / result).exists()]
    if not unfinished:
        raise UserError(f"No unfinished run in {runs}: start one without resume=last.")
    return unfinished[-1]
