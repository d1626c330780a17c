"""Whatever fails while a file or folder is written, what was there before stays, and nothing is left beside it."""

import errno
import json
import os
import socket
import tempfile
from pathlib import Path

import numpy as np
import pytest
from forked import mount_small_disk, run_forked

from pixio_robot.common.errors import UserError, exits_on_user_error
from pixio_robot.common.storage.files import atomic_path, explains_full_disk, temporary_folder, write_json, write_text
from pixio_robot.common.storage.json_lines import append_lines, keep_lines, read_lines
from pixio_robot.common.storage.kept import kept_folder, new_array


def write_half(path: Path, error: Exception) -> None:
    with atomic_path(path) as unfinished:
        unfinished.write_text("half")
        raise error


def test_a_file_that_cannot_be_written_to_its_end_is_as_before(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "some.json"
    write_json(path, {"a": "ä"})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    with pytest.raises(RuntimeError):
        write_half(path, RuntimeError())
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "ä"}
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    write_text(tmp_path / "old", "old")
    for name, kept in (("old", "is as it was"), ("new", "nothing was written there")):
        with pytest.raises(UserError, match=f"disk is full.*{name}: .*{kept}"):
            write_half(tmp_path / name, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert list(tmp_path.iterdir()) == [tmp_path / "old"]
    assert (tmp_path / "old").read_text() == "old"


def test_whatever_a_library_says_of_a_full_disk_is_understood(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """One says it in its own words, and one raises again, something else, while it closes the file."""

    def wrapped() -> None:
        raise RuntimeError("I/O error: No space left on device (os error 28)")

    def followed() -> None:
        try:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "some/file")
        finally:
            raise KeyError("close")

    def read_only() -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "some/folder")

    for fails, said in (
        (wrapped, "disk is full (No space left on device): free some"),
        (followed, "disk is full (Disk quota exceeded)"),
        (read_only, "some/folder may not be opened or made (Read-only file system): choose another place"),
    ):
        with pytest.raises(SystemExit) as ended:
            exits_on_user_error(fails)()
        assert ended.value.code == 2
        assert said in capsys.readouterr().err
    with pytest.raises(UserError, match="disk is full"), explains_full_disk(tmp_path, "all is kept"):
        wrapped()


def map_more_than_there_is(folder: Path) -> None:
    mount_small_disk(folder)
    with pytest.raises(UserError, match="disk is full"):
        kept_folder(
            folder / "kept", lambda unfinished: new_array(unfinished / "large.npy", np.uint8, (1 << 20,)).fill(1)
        )
    assert list(folder.iterdir()) == []
    new_array(folder / "small.npy", np.uint8, (1 << 18,))[:] = 1


def test_an_array_that_does_not_fit_the_disk_is_a_sentence(tmp_path: Path) -> None:
    """Where the disk has no room for what is written by way of memory, the system ends the process."""
    assert run_forked(map_more_than_there_is, tmp_path / "disk") == 0


def test_a_folder_appears_whole_and_takes_the_place_of_nothing(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "folder", overwrite=False) as unfinished:
        unfinished.mkdir()
        (unfinished / "a").write_text("a")
        assert not (tmp_path / "folder").exists()
    with pytest.raises(UserError, match="it exists"), atomic_path(tmp_path / "folder", overwrite=False):
        raise AssertionError
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["folder", "folder/a"]


def test_what_killed_processes_left_of_a_file_is_removed(tmp_path: Path) -> None:
    process = os.fork()
    if process == 0:
        os._exit(0)
    os.waitpid(process, 0)
    left = tmp_path / f".some.json.{socket.gethostname()}.{process}"
    alive = tmp_path / f".some.json.{socket.gethostname()}.{os.getppid()}"
    elsewhere = tmp_path / f".some.json.another-host.{process}"
    for path in (left, alive, elsewhere):
        path.write_text("half")
    write_json(tmp_path / "some.json", 1)
    assert not left.exists()
    assert alive.exists()
    assert elsewhere.exists()


def test_temporary_folders_of_killed_processes_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    process = os.fork()
    if process == 0:
        _open = temporary_folder("some")
        os._exit(0)  # as a killed one ends: nothing is cleaned up
    os.waitpid(process, 0)
    (left,) = tmp_path.iterdir()
    with temporary_folder("some") as own, temporary_folder("some") as other, temporary_folder("another") as third:
        assert not left.exists()
        assert {Path(own), Path(other), Path(third)} == set(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="no folder that may be written to"):
        write_text(tmp_path / "file" / "a", "")


def test_lines_that_are_broken_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    assert read_lines(file) == []
    append_lines(file, [{"step": 1}])
    with file.open("a") as stream:
        stream.write('{"step": 2, "lo')
    append_lines(file, [{"step": 3}])
    with file.open("ab") as stream:
        stream.write(b'[1]\n7\nnull\n\xff\xfe\n{"step": 4}')
    assert read_lines(file) == [{"step": 1}, {"step": 3}, {"step": 4}]
    keep_lines(file, lambda record: record["step"] > 1)
    assert file.read_text() == '{"step": 3}\n{"step": 4}\n'
