"""The command `pixio`: `pixio JOB ARGS` is `python scripts/JOB.py ARGS`, also where there is no clone.

Several processes: `torchrun --nproc-per-node 2 -m pixio_robot.cli.command train_policy …`.
"""

import runpy
import sys
from pathlib import Path

from pixio_robot import __version__
from pixio_robot.cli.jobs import job_file, summaries
from pixio_robot.common.errors import exits_on_user_error


def main() -> None:
    """Run the job that the command line names, or say which there are."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "help"):
        exits_on_user_error(print)(overview())
    elif name == "--version":
        print(f"pixio-robot {__version__}")
    else:
        script = str(exits_on_user_error(job_file)(name))
        # What `python SCRIPT` does; worker processes, too, then find the script as the main module.
        sys.argv = [script, *arguments]
        sys.path.insert(0, str(Path(script).parent))
        runpy.run_path(script, run_name="__main__")


def overview() -> str:
    """Return all jobs, grouped, one a line."""
    groups = summaries()
    width = max(len(name) for jobs in groups.values() for name in jobs)
    lines = ["pixio JOB KEY=VALUE …"]
    for title, jobs in groups.items():
        lines += ["", title, *(f"  {name:{width}}  {summary}" for name, summary in jobs.items())]
    return "\n".join([*lines, "", "pixio JOB --help shows a job's settings and examples."])


if __name__ == "__main__":
    main()
