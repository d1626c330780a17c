"""Stores that are one file, stand behind a URL, or keep frames as JPEG or JPEG XL."""

import shutil
import sys
import zipfile
from io import StringIO
from pathlib import Path

import fsspec
import imagecodecs
import numpy as np
import pytest
import torch
import zarr
from numbered_episodes import append_numbered, assert_came_back, assert_holds_numbered
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore, Feature, WindowDataset
from pixio_robot.demos.formats.conversion import convert
from pixio_robot.demos.formats.store import export_store
from pixio_robot.demos.inspection.inspection import inspect_store

CAMERA = "observation.images.front"


@pytest.fixture
def quiet() -> Console:
    return Console(file=StringIO())


@pytest.fixture(params=["shared.demos.zip", "memory://bucket/shared.zarr"])
def place(request: pytest.FixtureRequest, tmp_path: Path):
    """A zip file, and a URL of an object store."""
    if "://" in request.param:
        yield request.param
        fsspec.filesystem("memory").rm("/bucket", recursive=True)
    else:
        yield str(tmp_path / request.param)


def test_a_zip_file_and_a_url_hold_the_store(make_store, place, tmp_path, quiet):
    store = make_store(6)
    convert(store.path, place, console=quiet)
    shared = DemoStore.open(place)
    assert_came_back(shared, store, 6)
    steps = np.array([9, 2, 2, store.num_steps - 1])
    np.testing.assert_array_equal(shared.read_steps(CAMERA, steps), store.read_steps(CAMERA, steps))
    assert inspect_store(shared, advance=lambda: None).lengths == np.diff(store.episode_ends, prepend=0).tolist()
    with pytest.raises(UserError, match="can only be read"):
        append_numbered(shared, 6)
    with pytest.raises(UserError, match="exists"):
        convert(store.path, place, console=quiet)
    # Back to a folder, which goes on.
    convert(place, tmp_path / "back.zarr", format="store", console=quiet)
    back = DemoStore.open(tmp_path / "back.zarr")
    append_numbered(back, 6)
    assert_holds_numbered(DemoStore.open(back.path), 7)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        {"demos.zarr", "back.zarr"} | ({"shared.demos.zip"} if "://" not in place else set())
    )


def test_workers_read_a_zip_file_at_once(make_store, tmp_path, quiet):
    store = make_store(6)
    export_store(store, tmp_path / "shared.demos.zip", console=quiet)
    shared, original = (
        WindowDataset(DemoStore.open(path), 4, 2) for path in (tmp_path / "shared.demos.zip", store.path)
    )
    shared[0]
    loader = torch.utils.data.DataLoader(shared, batch_size=3, num_workers=2, multiprocessing_context="fork")
    for batch in loader:
        expected = original.batch(batch["index"].numpy())
        assert all(torch.equal(batch[key], expected[key]) for key in expected)


def test_a_zip_file_made_by_others(make_store, tmp_path):
    """Compressed once more, as most programs do."""
    store = make_store(4)
    shutil.make_archive(str(tmp_path / "packed"), "zip", store.path)
    with zipfile.ZipFile(tmp_path / "packed.zip") as archive:
        assert {member.compress_type for member in archive.infolist() if member.file_size} == {zipfile.ZIP_DEFLATED}
    assert_holds_numbered(DemoStore.open(tmp_path / "packed.zip"), 4)


@pytest.mark.parametrize("keep", [0.3, 0.999])
def test_a_zip_file_that_is_cut_off(make_store, tmp_path, quiet, keep):
    file = tmp_path / "shared.demos.zip"
    export_store(make_store(4), file, console=quiet)
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * keep)])
    with pytest.raises(UserError, match="not a whole zip file") as caught:
        DemoStore.open(file)
    assert "\n" not in str(caught.value)


def test_a_byte_of_a_zip_file_that_changed(make_store, tmp_path, quiet):
    file = tmp_path / "shared.demos.zip"
    export_store(make_store(4), file, console=quiet)
    with zipfile.ZipFile(file) as archive:
        start = archive.getinfo(f"data/{CAMERA}/c/0/0/0/0").header_offset
    content = bytearray(file.read_bytes())
    content[start + 200] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=f"{CAMERA} cannot be read"):
        DemoStore.open(file).read(CAMERA, 0, 4)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("memory://nothing.zarr", "not a demonstration store"),
        ("s3://bucket/demos.zarr", "needs a package that is not installed.*s3fs"),
        ("s4://bucket/demos.zarr", "cannot be opened"),
    ],
)
def test_bad_urls(url, says, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UserError, match=says) as caught:
        DemoStore.open(url)
    assert "\n" not in str(caught.value)


def smooth(n_frames: int) -> np.ndarray:
    """Frames as codecs of photographs like them."""
    rows, columns = np.mgrid[0:48, 0:64]
    waves = np.sin(
        0.4 * np.arange(n_frames)[:, None, None, None] + np.arange(3) + (rows / 20 + columns / 30)[..., None]
    )
    return (127 + 100 * waves).astype(np.uint8)


@pytest.fixture
def photographs(tmp_path: Path) -> DemoStore:
    features = {CAMERA: Feature((48, 64, 3), "uint8"), "action": Feature((2,), "float32")}
    store = DemoStore.create(tmp_path / "photographs.zarr", features, {"fps": 10})
    for number in range(2):
        episode = {CAMERA: smooth(9), "action": np.full((9, 2), number, np.float32)}
        store.append_episode(episode, seed=number, success=True, task="look")
    store.close()
    return store


@pytest.mark.parametrize("codec", ["jpeg", "jpegxl"])
def test_lossy_codecs(photographs, tmp_path, quiet, codec):
    convert(photographs.path, tmp_path / "small.zarr", format="store", codec=codec, console=quiet)
    small = DemoStore.open(tmp_path / "small.zarr")
    found = small.read(CAMERA, 0, 18)
    # What stands in the file is what the codec's own library decodes, seen through plain zarr, too.
    np.testing.assert_array_equal(zarr.open_array(small.path / f"data/{CAMERA}", mode="r")[:], found)
    if codec == "jpeg":
        encoded = imagecodecs.jpeg8_encode(smooth(9)[3], level=95)
        np.testing.assert_array_equal(found[12], imagecodecs.jpeg8_decode(encoded))
    error = np.abs(found.astype(float) - np.concatenate([smooth(9)] * 2))
    assert 0 < error.mean() < 2
    np.testing.assert_array_equal(small.read("action", 0, 18), photographs.read("action", 0, 18))
    assert small.fingerprint() != photographs.fingerprint()  # other frames: nothing cached of the one is the other's
    assert small.attributes["codec"].startswith(codec)
    convert(small.path, tmp_path / "small.demos.zip", codec=codec, console=quiet)
    DemoStore.open(tmp_path / "small.demos.zip").read_steps(CAMERA, np.array([17, 0]))


def test_codecs_that_are_missing_or_unknown(photographs, tmp_path, quiet, monkeypatch):
    convert(photographs.path, tmp_path / "small.zarr", format="store", codec="jpeg", console=quiet)
    with pytest.raises(UserError, match="Did you mean 'jpeg'"):
        convert(photographs.path, tmp_path / "other.zarr", format="store", codec="jpg", console=quiet)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    monkeypatch.setitem(sys.modules, "imagecodecs.zarr", None)
    with pytest.raises(UserError, match=r"pip install 'pixio-robot\[imagecodecs\]'"):
        DemoStore.open(tmp_path / "small.zarr")
    with pytest.raises(UserError, match=r"codec=jpegxl needs the package imagecodecs"):
        convert(photographs.path, tmp_path / "other.zarr", format="store", codec="jpegxl", console=quiet)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photographs.zarr", "small.zarr"]


def test_smaller_frames(photographs, tmp_path, quiet):
    convert(photographs.path, tmp_path / "small.zarr", format="store", image_size=24, console=quiet)
    small = DemoStore.open(tmp_path / "small.zarr")
    assert small.features[CAMERA] == Feature((24, 24, 3), "uint8")
    assert small.read(CAMERA, 0, 18).shape == (18, 24, 24, 3)
