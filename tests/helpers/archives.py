"""Archives of torch, taken apart and put together again in other ways than torch would."""

import zipfile
from pathlib import Path

Members = dict[str, bytes]


def members_of(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def name_of(members: Members, ending: str) -> str:
    return next(name for name in members if name.endswith(ending))


def written(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path
