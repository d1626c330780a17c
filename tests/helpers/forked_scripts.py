"""Runs the scripts as commands, in forks of one process that has the large libraries loaded.

A command that only says what is wrong with its arguments spends all but a second on importing torch and LeRobot. Scripts that
start processes of their own are run with `subprocess` instead.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
_LOADED_BEFORE = [
    *("torch", "timm", "lerobot.policies", "lerobot.envs.configs", "hydra", "zarr", "matplotlib.pyplot", "pydantic"),
    *("pixio_robot.encoders", "pixio_robot.environments", "lerobot_env_pixio", "lerobot_policy_pixio"),
    *("pixio_robot.training.job", "pixio_robot.pretraining.job", "pixio_robot.deployment.export.exporter"),
]

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(_LOADED_BEFORE)


def run_script(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `python scripts/NAME ARGUMENTS` in a folder, to its end.

    Args:
        name: File in `scripts/`.
        arguments: What follows on the command line.
        cwd: Folder to run in.

    Returns:
        Exit code and what was printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [str(ROOT / "scripts" / name), *arguments]
        process = _processes.Process(target=_run_as_main, args=(command, cwd, Path(folder)))
        process.start()
        process.join()
        stdout, stderr = ((Path(folder) / stream).read_text() for stream in ("stdout", "stderr"))
    assert process.exitcode is not None
    return subprocess.CompletedProcess(command, process.exitcode, stdout, stderr)


def _run_as_main(command: list[str], cwd: Path, output: Path) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        opened = os.open(output / stream.name.strip("<>"), os.O_WRONLY | os.O_CREAT)
        os.dup2(opened, stream.fileno())
    os.chdir(cwd)
    sys.argv = command
    sys.path.insert(0, str(Path(command[0]).parent))
    runpy.run_path(command[0], run_name="__main__")
