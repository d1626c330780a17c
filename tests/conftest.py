"""Settings for all tests, made before torch is imported anywhere."""

import os

# Two test processes, each with subprocesses of its own, share two cores; more threads only get in each other's way.
os.environ["OMP_NUM_THREADS"] = "1"
