"""How jobs are called here: as scripts of a clone, or by the command of an installed wheel."""

import re
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
IN_WHEEL = (PACKAGE / "scripts").is_dir()


def as_called_here(text: str) -> str:
    """Return a text with its `uv run scripts/JOB.py …` and `scripts/JOB.py` as they are called where there is no clone."""
    if not IN_WHEEL:
        return text
    return re.sub(r"(?:\buv run )?\bscripts/(\w+)\.py", r"pixio \1", text).replace("uv run python", "python")
