"""Folders that are kept: made once, whole, and made again, aloud, where they are not as they were."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import FORK

from pixio_robot.common.storage.kept import CHECKSUMS, kept_folder


def flip(path: Path, at: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped": (lambda place: flip(place / "inner" / "b"), "inner/b is damaged"),
    "cut": (lambda place: (place / "a").write_bytes(b"abc"), "a is damaged"),
    "missing": (lambda place: (place / "a").unlink(), "a is missing"),
    "no checksums": (lambda place: (place / CHECKSUMS).unlink(), f"it has no {CHECKSUMS}"),
    "checksums cut": (lambda place: (place / CHECKSUMS).write_text('{"a'), "cannot be read"),
    "checksums of another kind": (lambda place: (place / CHECKSUMS).write_text("[1]"), "its checksums are none"),
    "no bytes that are text": (lambda place: (place / CHECKSUMS).write_bytes(b"\xff\xfe"), "cannot be read"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_made_again_aloud(damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "inner").mkdir()
        (folder / "a").write_bytes(b"abcd")
        (folder / "inner" / "b").write_bytes(bytes(3 << 20))

    place = kept_folder(tmp_path / "kept", make)
    assert kept_folder(place, make) == place
    assert len(made) == 1
    change, said = DAMAGE[damage]
    change(place)
    assert kept_folder(place, make) == place
    assert len(made) == 2
    assert f"{place} is made again: " in caplog.text
    assert said in caplog.text
    assert (place / "a").read_bytes() == b"abcd"
    kept_folder(place, make)
    assert len(made) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_one_run_makes_what_another_waits_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = tmp_path / "kept"
    begun, awaited = FORK.Event(), FORK.Event()

    def make_slowly(folder: Path) -> None:
        begun.set()
        assert awaited.wait(60)
        (folder / "a").write_text("first")

    process = FORK.Process(target=kept_folder, args=(place, make_slowly))
    process.start()
    assert begun.wait(60)
    threading.Timer(0.2, awaited.set).start()
    kept_folder(place, lambda folder: pytest.fail(f"{folder} is made twice"))
    process.join(60)
    assert process.exitcode == 0
    assert "is being made by another run" in caplog.text
    assert (place / "a").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
