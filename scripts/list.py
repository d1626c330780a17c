"""List what there is: encoders, tasks, policies, robots, runs, or the settings of every job.

uv run scripts/list.py encoders
uv run scripts/list.py runs output_root=/data/outputs
uv run scripts/list.py settings
"""

import sys
from pathlib import Path
from typing import Literal

from rich.console import Console

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.settings import Place, settings


@settings(kw_only=True)
class List:
    """Settings of the job."""

    what: Literal["encoders", "tasks", "policies", "robots", "runs", "settings"]
    """What to list; the first argument without a = is it, too. `settings` is configs/README.md."""
    output_root: Place = Path("outputs")
    """Where runs are."""


@entry_point("list", List, positional=("what",))
def main(settings: List) -> None:
    """Print a table."""
    from pixio_robot.cli import listing
    from pixio_robot.cli.entry_points import load_job
    from pixio_robot.cli.explanation import settings_page
    from pixio_robot.cli.jobs import job_files

    if settings.what == "settings":
        print(settings_page(load_job(name) for name in job_files()), end="")
        return
    table = listing.runs(settings.output_root) if settings.what == "runs" else listing.TABLES[settings.what]()
    # A file or another program gets whole rows.
    Console(width=None if sys.stdout.isatty() else 250).print(table)


if __name__ == "__main__":
    main()
