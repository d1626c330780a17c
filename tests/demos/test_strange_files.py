"""Demonstrations of strangers: only what is inside a file is read, and small files take little memory."""

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from numbered_episodes import FEATURES, append_numbered

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore
from pixio_robot.demos.formats.robomimic import import_robomimic


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "demos.zarr"
    append_numbered(DemoStore.create(path, FEATURES, {"fps": 10}), 0)
    return path


def test_a_link_out_of_a_store_is_not_followed(store: Path, tmp_path: Path) -> None:
    (tmp_path / "moved.zarr").symlink_to(store)  # the store itself may lie elsewhere
    assert DemoStore.open(tmp_path / "moved.zarr").num_episodes == 1
    chunk = next(path for path in (store / "data").rglob("*") if path.is_file() and path.name != "zarr.json")
    chunk.rename(tmp_path / "elsewhere")
    chunk.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link to .*elsewhere, outside"):
        DemoStore.open(store)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"fps": float("nan")}, "fps"),
        ({"fps": 0}, "fps"),
        ({"tasks": "lift"}, "tasks"),
        ({"features": {"action": {"shape": [1 << 40], "dtype": "float32"}}}, "features action shape 0"),
        ({"features": {"action": {"shape": [2], "dtype": "object"}}}, "features action dtype"),
        ({"features": {"../../action": {"shape": [2], "dtype": "float32"}}}, "features ../../action"),
        ({"codec": 3}, "codec"),
    ],
)
def test_attributes_that_no_store_has_are_named(store: Path, changes: dict[str, object], sentence: str) -> None:
    described = json.loads((store / "zarr.json").read_text())
    described["attributes"].update(changes)
    (store / "zarr.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match=rf"is not what one has \({re.escape(sentence)}"):
        DemoStore.open(store)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", '{"attributes": []}', "null"])
def test_a_description_that_is_none_is_refused(store: Path, text: str) -> None:
    (store / "zarr.json").write_text(text)
    with pytest.raises(UserError, match="no readable zarr.json"):
        DemoStore.open(store)


def test_chunks_that_unpack_to_gigabytes_are_refused(store: Path) -> None:
    group = zarr.open_group(str(store), mode="r+")
    del group["meta/episode_seeds"]
    bomb = group.create_array("meta/episode_seeds", shape=(1 << 30,), chunks=(1 << 30,), dtype="int64", fill_value=0)
    assert bomb.nbytes == 1 << 33
    with pytest.raises(UserError, match="claims chunks of 8192 MiB"):
        DemoStore.open(store)


def robomimic(path: Path) -> h5py.File:
    file = h5py.File(path, "w")
    demo = file.create_group("data/demo_0")
    demo["actions"], demo["states"] = np.zeros((3, 7)), np.zeros((3, 4))
    demo["obs/agentview_image"] = np.zeros((3, 16, 16, 3), np.uint8)
    demo["obs/robot0_eef_pos"] = np.zeros((3, 3))
    file["data"].attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": {"control_freq": 20}})
    return file


def test_an_hdf5_file_names_no_other(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "secret.hdf5", "w") as secret:
        secret["image"] = np.zeros((3, 16, 16, 3), np.uint8)
    (tmp_path / "secret.raw").write_bytes(bytes(3 * 16 * 16 * 3))
    name, layout = "data/demo_0/obs/agentview_image", h5py.VirtualLayout((3, 16, 16, 3), np.uint8)
    layout[:] = h5py.VirtualSource(str(tmp_path / "secret.hdf5"), "image", (3, 16, 16, 3))
    raw = [(str(tmp_path / "secret.raw"), 0, h5py.h5f.UNLIMITED)]
    exploits = {
        "is a link to": lambda file: file.__setitem__(name, h5py.ExternalLink(str(tmp_path / "secret.hdf5"), "/image")),
        "lie in another file": lambda file: file.create_virtual_dataset(name, layout),
        "of .* lie in another": lambda file: file.create_dataset(name, (3, 16, 16, 3), np.uint8, external=raw),
        "claims 73242 MiB": lambda file: file.create_dataset(
            name, (100_000_000, 16, 16, 3), np.uint8, chunks=(1, 16, 16, 3)
        ),
    }
    for sentence, exploit in exploits.items():
        with robomimic(tmp_path / "demo.hdf5") as file:
            del file[name]
            exploit(file)
        with pytest.raises(UserError, match=sentence):
            import_robomimic(tmp_path / "demo.hdf5", tmp_path / "demos.zarr")
        assert not (tmp_path / "demos.zarr").exists()
    with robomimic(tmp_path / "demo.hdf5") as file:
        file["data/demo_0/obs/same_image"] = h5py.SoftLink(f"/{name}")
    assert import_robomimic(tmp_path / "demo.hdf5", tmp_path / "demos.zarr").num_steps == 3
