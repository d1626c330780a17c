"""Check an artifact on this machine: digest, golden pair, parity with its checkpoint, latency, memory.

uv run scripts/verify_artifact.py policy.pt
uv run scripts/verify_artifact.py policy.pt checkpoint=<pretrained_model folder>

Exit code 0: all checks passed; 1: one failed; 2: no artifact, damaged or edited, or a wrong command line.
"""

import sys
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from pixio_robot.cli.entry_points import entry_point


@entry_point("verify_artifact", positional=("file",))
def main(cfg: DictConfig) -> None:
    """See configs/verify_artifact.yaml for every choice."""
    from pixio_robot.deployment.verification import verify_artifact

    eager = None
    if cfg.checkpoint is not None:
        from pixio_robot.deployment.export.observations import fresh_parity

        eager = fresh_parity(Path(cfg.checkpoint), cfg.frames)
    passed = verify_artifact(
        Path(cfg.file),
        Console(),
        eager=eager,
        devices=list(cfg.devices) if cfg.devices is not None else None,
        threads=list(cfg.threads),
        calls=cfg.calls,
    )
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
