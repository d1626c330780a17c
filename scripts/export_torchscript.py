"""The same job as scripts/export.py, by the name that it had when TorchScript was all that it wrote."""

import runpy
from pathlib import Path

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).with_name("export.py")), run_name="__main__")
