"""The jobs that scripts/ holds, by name."""

import importlib.util
import sys
from pathlib import Path

from pixio_robot.cli.entry_points import Job
from pixio_robot.common.errors import UserError, nearest_name

SCRIPT_FOLDERS = tuple(Path(__file__).resolve().parents[2] / folder for folder in ("scripts", "scripts/benchmarks"))


def job_files() -> dict[str, Path]:
    """Return the script of every job, by the job's name."""
    files = [file for folder in SCRIPT_FOLDERS for file in sorted(folder.glob("*.py"))]
    return {file.stem: file for file in files if "@entry_point(" in file.read_text(encoding="utf-8")}


def load_job(name: str) -> Job:
    """Import a job's script, which imports nothing heavy before the job runs.

    Raises:
        UserError: There is no such job.
    """
    files = job_files()
    if name not in files:
        raise UserError(f"Unknown job {name!r}. {nearest_name(name, files)}")
    spec = importlib.util.spec_from_file_location(f"_pixio_job_{name}", files[name])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for what their annotations name
    spec.loader.exec_module(module)
    return module.main
