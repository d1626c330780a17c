"""Say what of this package runs on this machine, and what to do about the rest.

uv run scripts/doctor.py
uv run scripts/doctor.py output_root=/data/outputs
uv run scripts/doctor.py > doctor.txt

Exit code 0: the main job can run; 1: something that it needs is missing; 2: a wrong command line.
"""

import sys
from pathlib import Path

from rich.console import Console

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.settings import Place, settings


@settings
class Doctor:
    """Settings of the job."""

    output_root: Place = Path("outputs")
    """Where runs would go."""


@entry_point("doctor", Doctor)
def main(settings: Doctor) -> None:
    """Examine."""
    from pixio_robot.cli.doctor import examine, print_examination

    sys.exit(0 if print_examination(examine(settings.output_root), Console()) else 1)


if __name__ == "__main__":
    main()
