"""Files that are complete or as before, whenever the process dies."""

import json
import os
from pathlib import Path


def write_json(path: Path, content: object) -> None:
    """Write JSON so that the file at `path` is complete or as before, whenever the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)
