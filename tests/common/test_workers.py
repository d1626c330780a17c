"""Worker processes on a machine with a GPU."""

import os
import subprocess
import sys
from pathlib import Path

HELPERS = Path(__file__).parents[1] / "helpers"


def test_workers_can_use_a_gpu_though_they_are_forks_of_what_imported_lerobot() -> None:
    environment = os.environ | {"PYTORCH_NVML_BASED_CUDA_CHECK": "0"}
    command = [sys.executable, str(HELPERS / "cuda_driver_watch.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["(True, False)"], done.stdout + done.stderr
