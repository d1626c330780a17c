"""Say what of this package runs on this machine, and what to do about the rest.

uv run scripts/doctor.py

Exit code 0: the main job can run; 1: something that it needs is missing; 2: a wrong command line.
"""

import sys
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from pixio_robot.cli.entry_points import entry_point


@entry_point("doctor")
def main(cfg: DictConfig) -> None:
    """See configs/doctor.yaml."""
    from pixio_robot.cli.doctor import examine, print_examination

    sys.exit(0 if print_examination(examine(Path(cfg.output_root)), Console()) else 1)


if __name__ == "__main__":
    main()
