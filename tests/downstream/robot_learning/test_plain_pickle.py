"""Expert files of strangers: arrays and plain containers come out as they went in, and nothing else is made."""

import collections
import decimal
import io
import os
import pickle
import pickletools
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pixio_robot.common.errors import UserError
from pixio_robot.downstream.robot_learning.plain_pickle import read_plain_pickle

EPISODE = {
    "images": np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8),
    "actions": np.random.default_rng(1).normal(size=(2, 3)),
    "big_endian": np.arange(4, dtype=">i2"),
    "columns_first": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "empty": np.zeros((0, 3), np.float32),
    "truth": np.array([True, False]),
    "words": np.array(["pen", "ball"]),
    "scalar": np.float32(1.5),
    "env_infos": {"proprio": np.ones((2, 24)), "time": [0, 1], "done": (False, True), "note": None},
}


def written(path: Path, value: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


def assert_same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert_same(found[key], value)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected):
            assert_same(one, other)
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_containers_come_back(tmp_path: Path, protocol: int) -> None:
    assert_same(read_plain_pickle(written(tmp_path / "a.pickle", [EPISODE, EPISODE], protocol)), [EPISODE, EPISODE])


def test_files_of_older_numpys_are_read(tmp_path: Path) -> None:
    """numpy 1 called the module of its functions by another name."""
    content = pickle.dumps(EPISODE["actions"], protocol=2).replace(b"numpy._core", b"numpy.core")
    (tmp_path / "a.pickle").write_bytes(content)
    np.testing.assert_array_equal(read_plain_pickle(tmp_path / "a.pickle"), EPISODE["actions"])


def test_what_torch_saved_is_read_unless_it_has_tensors(tmp_path: Path) -> None:
    torch.save(EPISODE, tmp_path / "a.pth")
    assert_same(read_plain_pickle(tmp_path / "a.pth"), EPISODE)
    torch.save({"images": torch.zeros(2)}, tmp_path / "b.pth")
    with pytest.raises(UserError, match="b.pth was not loaded: it asks for .*(tensor|outside)"):
        read_plain_pickle(tmp_path / "b.pth")
    with zipfile.ZipFile(tmp_path / "c.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("c/data.pkl", pickle.dumps(bytes(1000)))
    with pytest.raises(UserError, match="c.pth is damaged"):  # it could be of any size
        read_plain_pickle(tmp_path / "c.pth")


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Calls(os.system, "touch made"), "system"),
        (Calls(eval, "open('made', 'w')"), "eval"),
        (Calls(getattr, "", "join"), "getattr"),
        (Calls(np.load, "other.npy"), "load"),
        (Calls(np.memmap, "made", "uint8", "w+", 0, (4,)), "memmap"),
        ([{"images": np.array([Calls(os.system, "touch made")], object)}], "array of 'O8'"),
        (np.array([1, "a", None], object), "array of 'O8'"),
        (np.zeros(2, [("a", "f4"), ("b", "i4")]), "array of 'V8'"),
        (np.zeros(2, "M8[s]"), "array of 'M8'"),
        (decimal.Decimal(1), "Decimal"),
        ({1, 2}, "set"),
        (Path("/"), "Posix"),
        (collections.Counter("ab"), "Counter"),
        (np.float64, "float64"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_anything_else_is_refused_by_name_and_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: object, name: str, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "a.pickle", value, protocol)
    with pytest.raises(UserError, match=f"was not loaded: it asks for .*{name}.*plain containers only"):
        read_plain_pickle(tmp_path / "a.pickle")
    assert [file.name for file in tmp_path.iterdir()] == ["a.pickle"]


def array_with(shape: object = (2,), kind: object = "f8", data: object = b"\0" * 16, order: str = "<") -> object:
    """Return what pickles as an array with these parts, true or not."""
    reconstruct, arguments, _ = np.zeros(1).__reduce__()
    dtype = Calls(np.dtype, kind, False, True, state=(3, order, None, None, None, -1, -1, 0))
    return Calls(reconstruct, *arguments, state=(1, shape, dtype, False, data))


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (array_with(shape=(1 << 40,)), "16 bytes for an array of shape"),
        (array_with(shape=(-2,)), "an array of shape"),
        (array_with(shape=(True,)), "an array of shape"),
        (array_with(data=[1, 2]), "an array of objects"),
        (array_with(kind="O"), "an array of 'O'"),
        (array_with(kind="f8,O"), "an array of 'f8,O'"),
        (array_with(kind="f3"), "damaged or no pickle"),
        (Calls(np.dtype, "f8", False, True, state=(3, "|", None, ("a",), {"a": ()}, 8, 1, 63)), "an array of records"),
    ],
)
def test_arrays_that_are_none_are_refused(tmp_path: Path, value: object, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        read_plain_pickle(written(tmp_path / "a.pickle", [value], 2))


def test_the_stand_ins_of_one_file_are_not_those_of_the_next(tmp_path: Path) -> None:
    """An instruction of pickle sets attributes of what it is given."""
    attack = b"\x80\x02cnumpy\ndtype\n}X\x04\x00\x00\x00funcX\x01\x00\x00\x00asb."
    pickletools.dis(attack, out=io.StringIO())  # it is well formed
    (tmp_path / "attack.pickle").write_bytes(attack)
    with pytest.raises(UserError):
        read_plain_pickle(tmp_path / "attack.pickle")
    assert_same(read_plain_pickle(written(tmp_path / "a.pickle", EPISODE)), EPISODE)


def test_a_small_file_does_not_become_large(tmp_path: Path) -> None:
    value: list[Any] = []
    for _ in range(60):
        value = [value, value]
    begun = time.monotonic()
    read_plain_pickle(written(tmp_path / "a.pickle", value))
    assert time.monotonic() - begun < 60  # else it would take longer than the universe is old


@pytest.mark.parametrize("content", [b"", b"no pickle", b"\x80\x04]", pickle.dumps(EPISODE)[:-200]])
def test_damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pickle").write_bytes(content)
    with pytest.raises(UserError, match="a.pickle is damaged or no pickle"):
        read_plain_pickle(tmp_path / "a.pickle")
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(UserError, match="b.pickle is damaged or no pickle"):
        read_plain_pickle(written(tmp_path / "b.pickle", endless))
    with pytest.raises(UserError, match="There is no expert file"):
        read_plain_pickle(tmp_path / "c.pickle")
