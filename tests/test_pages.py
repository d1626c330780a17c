"""The READMEs: one in every folder, none too long, and no link that leads nowhere."""

import re
from pathlib import Path

import pytest

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
