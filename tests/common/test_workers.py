"""Worker processes: what they are forked from, and what is known of one that hangs."""

import os
import subprocess
import sys
from pathlib import Path

import worker_tasks
from forked_scripts import PRELOADED

from pixio_robot.common.workers import WorkerPool

HELPERS = Path(__file__).parents[1] / "helpers"


def test_workers_can_use_a_gpu_though_they_are_forks_of_what_imported_lerobot() -> None:
    environment = os.environ | {"PYTORCH_NVML_BASED_CUDA_CHECK": "0"}
    command = [sys.executable, str(HELPERS / "cuda_driver_watch.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["(True, False)"], done.stdout + done.stderr


def test_a_worker_is_a_fork_of_a_process_without_threads_and_says_where_it_hangs() -> None:
    """Forks of a process with threads may hang; whatever hangs, its lines are known."""
    with WorkerPool[str, str](worker_tasks.set_up, (), 1, PRELOADED) as pool:
        pool.submit("look")
        (outcome,) = pool.wait()
        assert outcome.result == "Threads:\t1"
        pool.submit("hang", time_limit=0.5)
        (outcome,) = pool.wait()
    assert outcome.crash == "not over within 0.5 s"
    assert "in _wait_for_ever" in outcome.details
