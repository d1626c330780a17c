"""Functions run in forked processes, with file systems of their own."""

import multiprocessing
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

FORK = multiprocessing.get_context("fork")


def run_forked(function: Callable[..., None], *arguments: object, timeout: float = 30) -> int:
    """Return the exit code of a forked process that calls a function."""
    process = FORK.Process(target=function, args=arguments)
    process.start()
    process.join(timeout)
    try:
        assert process.exitcode is not None
        return process.exitcode
    finally:
        process.kill()


def mount_small_disk(folder: Path, options: str = "size=400k") -> None:
    """Make a folder a file system of 400 KiB, or as tmpfs's options say, for this forked process and its children.

    Any user may do so.
    """
    user, group = os.getuid(), os.getgid()
    os.unshare(os.CLONE_NEWUSER | os.CLONE_NEWNS)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    folder.mkdir()
    _mount_tmpfs(folder, options)


def enlarge_small_disk(folder: Path) -> None:
    """Double the size of what `mount_small_disk` mounted."""
    _mount_tmpfs(folder, "remount,size=800k")


def _mount_tmpfs(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
