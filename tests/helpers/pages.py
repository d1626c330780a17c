"""What the READMEs show: their commands, and the files that their blocks of code are."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
READMES = sorted(
    page
    for folder in (".", ".github", "configs", "envs", "pixio_robot", "policies", "scripts", "tests")
    for page in (ROOT / folder).glob("*.md" if folder in (".", ".github") else "**/*.md")
)

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_FENCED, _INLINE = re.compile(r"^uv run scripts/(.*)$", re.M), re.compile(r"`uv run scripts/([^`]*)`")
_CUT_SHORT = re.compile(r"…(?<!=…)")


@dataclass(frozen=True)
class Command:
    """A command of a page: the job's name and its arguments, as they stand there.

    Attributes:
        page: The page.
        job: The script's name without its ending.
        arguments: What follows it, as text.
    """

    page: Path
    job: str
    arguments: str

    @property
    def is_cut_short(self) -> bool:
        """Whether it ends or begins with dots: it goes on with another row of its table."""
        return bool(_CUT_SHORT.search(self.arguments))

    @property
    def words(self) -> list[str]:
        """Its arguments one by one, with `x` where the reader puts something in."""
        return shlex.split(re.sub(r"<[^>]*>|…", "x", self.arguments))


def commands() -> list[Command]:
    """Return the `uv run scripts/…` of all READMEs, in their order."""
    found = []
    for page in READMES:
        text = page.read_text().replace("\\\n", " ") if page.name == "README.md" else ""
        for line in _FENCED.findall(text) + _INLINE.findall(text):
            script, _, arguments = re.split(r" #| > ", line)[0].strip().partition(" ")
            found.append(Command(page, Path(script).stem, arguments.strip()))
    return found


def blocks(page: Path, language: str) -> list[str]:
    """Return a page's blocks of code of a language."""
    return [text for kind, text in _BLOCK.findall(page.read_text()) if kind == language]


def write_files(page: Path, folder: Path) -> list[Path]:
    """Write the blocks of a page that begin with the name of a file in a comment into a folder, and return the files."""
    written = []
    for _, text in _BLOCK.findall(page.read_text()):
        name, _, content = text.partition("\n")
        if name.startswith("# ") and "/" in name and " " not in name[2:]:
            path = folder / name[2:]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
            written.append(path)
    return written


def install(package: Path) -> None:
    """Leave what `pip install -e` of a folder with a pyproject.toml leaves: its name among the distributions of its folder."""
    import tomllib

    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    info = package / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
