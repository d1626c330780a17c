"""The READMEs: one in every folder, none too long, no link that leads nowhere, no command or line of Python that is wrong."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from pages import READMES as PAGES
from pages import ROOT, Command, blocks, commands, write_files
from PIL import Image

from pixio_robot.cli.entry_points import load_job

PICTURE_OR_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def without_code(text: str) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    prose = without_code(page.read_text())
    for link in PICTURE_OR_LINK.findall(prose):
        if link.startswith(("https://", "http://")):
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), f"{page}: {link}"
        if anchor:
            titles = [
                re.sub(r"[^\w\s-]", "", title).strip()
                for title in re.findall(r"^#+ (.*)$", without_code(target.read_text()), re.M)
            ]
            assert anchor in [title.lower().replace(" ", "-") for title in titles], f"{page}: {link}"


def test_the_front_page_shows_a_moving_picture() -> None:
    picture = ROOT / ".github" / "rollouts.webp"
    assert f"]({picture.relative_to(ROOT)})" in (ROOT / "README.md").read_text()
    with Image.open(picture) as opened:
        assert getattr(opened, "n_frames", 1) > 10
    assert picture.stat().st_size <= 1_000_000


def test_what_is_cited_is_this_version() -> None:
    cited = yaml.safe_load((ROOT / ".github" / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (cited["cff-version"], cited["type"]) == ("1.2.0", "software")
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])
    assert cited["authors"] and cited["title"].startswith(project["name"])


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


OF_THE_TERMINAL = ("--help", "-m")


def understood() -> list[Command]:
    """The commands of the READMEs, but for those that are cut short or go on with a run."""
    found = {(each.job, each.arguments): each for each in commands() if not each.is_cut_short}
    return [each for each in found.values() if "resume=" not in each.arguments]


@pytest.mark.parametrize("command", understood(), ids=lambda each: f"{each.job} {each.arguments}"[:60])
def test_a_command_of_a_page_is_understood(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "--config-dir" in command.words:
        write_files(command.page, tmp_path)
        monkeypatch.chdir(tmp_path)
    sweeps = "-m" in command.words
    words = [word for word in command.words if word not in OF_THE_TERMINAL]
    load_job(command.job).read([re.sub(r"^([\w.]+=[^\[{,]*),.*", r"\1", word) if sweeps else word for word in words])


def test_the_pages_encoder_gives_the_tokens_that_it_says() -> None:
    (lines,) = blocks(ROOT / "pixio_robot" / "encoders" / "README.md", "python")
    assert len(lines.splitlines()) <= 10
    names: dict[str, Any] = {}
    exec(lines, names)
    said = [tuple(int(number) for number in shape.split(", ")) for shape in re.findall(r"\(([\d, ]+)\)", lines)][-2:]
    assert [tuple(part.shape) for part in (names["tokens"].global_tokens, names["tokens"].patch_tokens)] == said


def test_pages_have_many_commands() -> None:
    assert len(understood()) > 60
