"""Tells a LeRobotDataset from what it was before, without reading its frames."""

import hashlib
from pathlib import Path

_FOLDERS = ("meta", "data", "videos")


def dataset_fingerprint(root: Path) -> str:
    """Return a short text that differs where a LeRobotDataset in a folder has changed, and is the same for a copy.

    It is of the metadata, which hold the statistics of every episode, and of names and sizes of all other files.
    """
    digest = hashlib.blake2b(digest_size=8)
    for folder in _FOLDERS:
        for path in sorted(path for path in (root / folder).rglob("*") if path.is_file()):
            digest.update(f"{path.relative_to(root).as_posix()} {path.stat().st_size}\n".encode())
            if folder == "meta":
                digest.update(path.read_bytes())
    return digest.hexdigest()
