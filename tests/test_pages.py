"""The READMEs: one in every folder, none too long, and no link that leads nowhere."""

import re
import shlex
from pathlib import Path

import pytest

from pixio_robot.cli.entry_points import load_job

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    page
    for folder in (".", "configs", "envs", "pixio_robot", "policies", "scripts", "tests")
    for page in (ROOT / folder).glob("*.md" if folder == "." else "**/*.md")
)
PICTURE_OR_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in PICTURE_OR_LINK.findall(prose):
        if link.startswith(("https://", "http://")):
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), f"{page}: {link}"
        if anchor:
            titles = [
                re.sub(r"[^\w\s-]", "", title).strip() for title in re.findall(r"^#+ (.*)$", target.read_text(), re.M)
            ]
            assert anchor in [title.lower().replace(" ", "-") for title in titles], f"{page}: {link}"


def test_the_front_page_is_short_and_no_readme_is_long() -> None:
    generated = ROOT / "configs" / "README.md"  # every key there is: to search in, not to read
    sizes = {page: page.stat().st_size for page in PAGES if page.name == "README.md" and page != generated}
    assert sizes[ROOT / "README.md"] <= 8_000
    assert [page for page, size in sizes.items() if size > 12_000] == []


def test_every_room_has_a_page() -> None:
    rooms = [folder for folder in (ROOT / "pixio_robot").iterdir() if (folder / "__init__.py").exists()]
    rooms += [ROOT / folder for folder in ("policies", "envs", "scripts", "scripts/benchmarks", "tests")]
    assert [room for room in rooms if not (room / "README.md").exists()] == []


def test_commands_name_scripts_that_exist() -> None:
    for page in PAGES:
        for script in re.findall(r"(?<![\w/.])scripts/[\w/]+\.py", page.read_text()):
            assert (ROOT / script).exists(), f"{page}: {script}"


FENCED, INLINE = re.compile(r"^uv run scripts/(.*)$", re.M), re.compile(r"`uv run scripts/([^`]*)`")
CUT_SHORT = re.compile(r"…(?<!=…)")
OF_THE_TERMINAL = ("--help", "-m")


def commands() -> list[tuple[str, str]]:
    """The commands of the READMEs as they stand there, but for those that are cut short or go on with a run."""
    found: dict[tuple[str, str], None] = {}
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ") if page.name == "README.md" else ""
        for command in FENCED.findall(text) + INLINE.findall(text):
            script, _, arguments = re.split(r" #| > ", command)[0].partition(" ")
            if not CUT_SHORT.search(arguments) and "resume=" not in arguments:
                found[Path(script).stem, re.sub(r"<[^>]*>|…", "x", arguments)] = None
    return list(found)


@pytest.mark.parametrize(("name", "arguments"), commands(), ids=lambda part: part[:60])
def test_a_command_of_a_page_is_understood(name: str, arguments: str) -> None:
    words = shlex.split(arguments)
    sweeps = "-m" in words
    words = [word for word in words if word not in OF_THE_TERMINAL]
    load_job(name).read([re.sub(r"^([\w.]+=[^\[{,]*),.*", r"\1", word) if sweeps else word for word in words])


def test_pages_have_many_commands() -> None:
    assert len(commands()) > 60
