import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # toy_run, here and in spawned processes
