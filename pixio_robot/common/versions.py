"""The software that a result depends on: `environment.json`."""

import functools
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

# Engines, and collections of tasks.
PHYSICS_PACKAGES = ("mujoco", "dm-control", "pymunk")
TASK_PACKAGES = ("robosuite", "metaworld", "gym-aloha", "gym-pusht", "gymnasium-robotics")

_PACKAGES = (
    "pixio-robot",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "lerobot",
    "gymnasium",
    *PHYSICS_PACKAGES,
    *TASK_PACKAGES,
    "zarr",
)


def software_versions() -> dict[str, str]:
    """Return the versions that a result depends on.

    Python, the packages that shape training, simulation and images (those that are installed), the platform,
    the processor, and, in a clone of the repository, the git commit with `-dirty` after it when files were
    changed.
    """
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    versions["platform"] = platform.platform()
    versions["cpu"] = f"{_processor_name()}, {os.cpu_count()} cores"
    commit = _git_commit()
    if commit is not None:
        versions["git_commit"] = commit
    return versions


def _processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@functools.cache
def _git_commit() -> str | None:
    """Return the commit of the clone that this package runs from; None when it runs from somewhere else."""
    root = Path(__file__).resolve().parents[2]
    # Installed inside somebody's repository (a virtual environment, say), its commit would not be ours.
    toplevel = _git(root, "rev-parse", "--show-toplevel")
    if toplevel is None or Path(toplevel) != root:
        return None
    return _git(root, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
