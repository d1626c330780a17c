"""Check an artifact on this machine: digest, golden pair, parity with its checkpoint, latency, memory.

uv run scripts/verify_artifact.py policy.pt
uv run scripts/verify_artifact.py policy.pt checkpoint=<pretrained_model>
uv run scripts/verify_artifact.py policy.pt 'devices=[cpu]' 'threads=[1,4]' calls=1000

Exit code 0: all checks passed; 1: one failed; 2: no artifact, damaged or edited, or a wrong command line.
"""

import sys
from pathlib import Path

from rich.console import Console

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.settings import Count, Place, Text, settings


@settings(kw_only=True)
class VerifyArtifact:
    """Settings of the job."""

    file: Place
    """The artifact; the first argument without a = is it, too."""
    checkpoint: Place | None = None
    """What it was exported from (a pretrained_model folder, a run, or `latest`): compare both on observations fresh to it."""
    output_root: Place = Path("outputs")
    """Folder in which runs are looked for."""
    frames: Text | None = None
    """A DemoStore for these; null takes the checkpoint's own demonstrations."""
    devices: tuple[Text, ...] | None = None
    """For example [cpu]; null takes each of the artifact's that this machine has."""
    threads: tuple[Count, ...] = (1, 2)
    """Numbers of CPU threads to measure with."""
    calls: Count = 100
    """Calls of each measurement."""


@entry_point("verify_artifact", VerifyArtifact, positional=("file",))
def main(settings: VerifyArtifact) -> None:
    """Check."""
    from pixio_robot.deployment.verification import verify_artifact

    eager = None
    if settings.checkpoint is not None:
        from pixio_robot.deployment.export.observations import fresh_parity
        from pixio_robot.evaluation.checkpoints import find_checkpoint

        eager = fresh_parity(find_checkpoint(settings.checkpoint, settings.output_root, Console()), settings.frames)
    passed = verify_artifact(
        settings.file,
        Console(),
        eager=eager,
        devices=list(settings.devices) if settings.devices is not None else None,
        threads=list(settings.threads),
        calls=settings.calls,
    )
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
