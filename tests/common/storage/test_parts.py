"""A job in parts: which part does what, and what is refused when they are joined."""

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pixio_robot.common.errors import UserError
from pixio_robot.common.storage.parts import Parts, PartsOfOutput

ITEMS = [f"shard-{number:03d}.tar" for number in range(10)]
MADE_BY = {"frames": 10, "families": ("a", "b")}


def parts_of(output: Path, part: int | None, parts: int = 4, **changed: Any) -> PartsOfOutput:
    return Parts(part=part, parts=parts).of(output, ITEMS, MADE_BY | changed)


def make(output: Path, part: int, parts: int = 4, **changed: Any) -> list[str]:
    done: list[str] = []
    parts_of(output, part, parts, **changed).make(lambda items, folder: done.extend(items))
    return done


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Where four parts have been made."""
    for part in range(1, 5):
        make(tmp_path / "out", part)
    return tmp_path / "out"


@pytest.mark.parametrize(("parts", "unit"), [(1, 1), (4, 1), (10, 1), (3, 4), (2, 4)])
def test_parts_hold_every_item_once_in_order_and_keep_units_together(tmp_path, parts, unit):
    done: list[list[str]] = []
    for part in range(1, parts + 1):
        Parts(part=part, parts=parts).of(tmp_path / "out", ITEMS, {}, unit).make(lambda items, _: done.append(items))
    assert list(itertools.chain(*done)) == ITEMS
    assert all(len(items) % unit == 0 for items in done[:-1])
    groups = [-(-len(items) // unit) for items in done]
    assert max(groups) - min(groups) <= 1
    folders = Parts(parts=parts).of(tmp_path / "out", ITEMS, {}, unit).joined()
    assert [folder.name for folder in folders] == [f"{part}-of-{parts}" for part in range(1, parts + 1)]


def test_a_part_that_is_there_is_not_made_again_and_one_that_was_stopped_is(output, caplog):
    assert make(output, 2) == []
    assert "2-of-4 is there already" in caplog.text
    with pytest.raises(UserError, match=r"2-of-4 was made otherwise .*\(frames=10 there and 11 here\)"):
        make(output, 2, frames=11)
    (output.with_name("out.parts") / "2-of-4" / "part.json").unlink()
    assert make(output, 2) == ITEMS[2:5]

    def stopped(items: object, folder: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parts_of(output, 1, 5).make(stopped)
    assert not list(output.with_name("out.parts").glob("1-of-5/part.json"))


def change(number: int, **values: Any) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        file = folder / f"{number}-of-4" / "part.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return changed


def remove(folder: Path) -> None:
    shutil.rmtree(folder / "2-of-4")
    (folder / "4-of-4" / "part.json").unlink()


def copy(folder: Path) -> None:
    shutil.rmtree(folder / "3-of-4")
    shutil.copytree(folder / "2-of-4", folder / "3-of-4")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (remove, r"lacks 2-of-4, 4-of-4 \(4-of-4 was begun; there: 1-of-4, 3-of-4\): .* with part=2 parts=4"),
        (copy, r"3-of-4/part.json is that of part 2 of 4"),
        (change(3, items=ITEMS[4:7]), r"2-of-4 and .*3-of-4 both hold shard-004.tar"),
        (change(3, items=ITEMS[5:6]), r"No part in .* holds shard-006.tar"),
        (change(3, items=[{}]), r"3-of-4/part.json is damaged: it describes no part"),
        (change(1, made_by={}), r"1-of-4 was made otherwise .*frames=None there and 10 here"),
        (
            lambda folder: (folder / "1-of-4" / "part.json").write_text("{"),
            r"1-of-4/part.json is damaged: it is no JSON",
        ),
    ],
    ids=["missing", "copied", "overlapping", "incomplete", "damaged", "other software", "no JSON"],
)
def test_parts_that_are_not_the_whole_are_refused_by_name(output, spoil, sentence):
    assert len(parts_of(output, None).joined()) == 4
    spoil(output.with_name("out.parts"))
    with pytest.raises(UserError, match=sentence):
        parts_of(output, None).joined()


def test_parts_made_with_other_settings_than_the_joining_are_refused(output):
    with pytest.raises(UserError, match=r"1-of-4 was made otherwise .*families=\['a', 'b'\] there and \['a'\] here"):
        parts_of(output, None, families=("a",)).joined()
    with pytest.raises(UserError, match=r"lacks 1-of-3, 2-of-3, 3-of-3 \(there: 1-of-4"):
        parts_of(output, None, 3).joined()


@pytest.mark.parametrize("values", [{"part": 5, "parts": 4}, {"part": 1}])
def test_a_part_that_there_is_not_is_refused(values):
    with pytest.raises(UserError, match="must be one of 1 to parts"):
        Parts(**values)


def test_more_parts_than_items_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"parts=11 is more than there is to share out \(10\)"):
        parts_of(tmp_path / "out", 1, 11)
    with pytest.raises(UserError, match=r"\(10 in groups of 4\)"):
        Parts(part=1, parts=4).of(tmp_path / "out", ITEMS, {}, unit=4)
