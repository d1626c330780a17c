import json
import sys
import zipfile
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import imagecodecs.numcodecs
import numcodecs
import numpy as np
import pytest
import zarr
from numbered_episodes import assert_came_back
from rich.console import Console
from zarr.storage import ZipStore

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore, Feature
from pixio_robot.demos.formats.conversion import convert
from pixio_robot.demos.formats.replay_buffer import export_replay_buffer, import_replay_buffer

ENDS = np.array([5, 6, 14])
JPEG_XL = "imagecodecs_jpegxl"

Arrays = dict[str, np.ndarray]


@pytest.fixture
def quiet() -> Console:
    return Console(file=StringIO())


def values(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(ENDS[-1], *shape)).astype(np.float32)


def frames(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (ENDS[-1], *shape), np.uint8)


def pusht() -> Arrays:
    """The arrays of pusht_cchi_v7_replay.zarr, smaller."""
    return {
        "img": frames(0, 12, 12, 3).astype(np.float32),
        "state": values(1, 5),
        "action": values(2, 2),
        "keypoint": values(3, 9, 2),
        "n_contacts": values(4, 1),
    }


def umi() -> Arrays:
    """The arrays of UMI's dataset.zarr.zip, smaller."""
    return {
        "camera0_rgb": frames(0, 12, 12, 3),
        "robot0_eef_pos": values(1, 3),
        "robot0_eef_rot_axis_angle": values(2, 3),
        "robot0_gripper_width": values(3, 1),
        "robot0_demo_start_pose": values(4, 6).astype(np.float64),
        "robot0_demo_end_pose": values(5, 6).astype(np.float64),
    }


def write_buffer(store: str | ZipStore, arrays: Arrays, ends: np.ndarray = ENDS) -> None:
    """A replay buffer as diffusion policy lays it out, with zarr alone."""
    root = zarr.open_group(store, mode="w", zarr_format=2)
    for group, members in (("data", arrays), ("meta", {"episode_ends": ends})):
        made = root.create_group(group)
        for name, content in members.items():
            chunks = (4, *content.shape[1:]) if content.ndim == 4 else (max(1, len(content)), *content.shape[1:])
            array = made.create_array(name, shape=content.shape, dtype=content.dtype, chunks=chunks)
            array[:] = content


def write_zip(path: Path, arrays: Arrays) -> None:
    store = ZipStore(path, mode="w")
    write_buffer(store, arrays)
    store.close()


def all_of(store: DemoStore, key: str) -> np.ndarray:
    return store.read(key, 0, store.num_steps)


def test_pusht(tmp_path, quiet):
    arrays = pusht()
    write_buffer(str(tmp_path / "pusht.zarr"), arrays)
    convert(tmp_path / "pusht.zarr", tmp_path / "store.zarr", fps=10, console=quiet)
    store = DemoStore.open(tmp_path / "store.zarr")
    assert store.features == {
        "observation.images.img": Feature((12, 12, 3), "uint8"),
        "observation.state": Feature((5,), "float32"),
        "action": Feature((2,), "float32"),
    }
    assert store.fps == 10
    assert store.episode_ends.tolist() == ENDS.tolist()
    assert store.episode_success.tolist() == [-1, -1, -1]
    assert store.episode_tasks == ["pusht"] * 3
    np.testing.assert_array_equal(all_of(store, "observation.images.img"), arrays["img"])
    np.testing.assert_array_equal(all_of(store, "observation.state"), arrays["state"])
    np.testing.assert_array_equal(all_of(store, "action"), arrays["action"])
    assert store.attributes["given_up"] == ["keypoint", "n_contacts"]


def test_umi_zip(tmp_path, quiet):
    arrays = umi()
    write_zip(tmp_path / "dataset.zarr.zip", arrays)
    store = import_replay_buffer(tmp_path / "dataset.zarr.zip", tmp_path / "store.zarr", fps=60, console=quiet)
    assert store.image_keys == ["observation.images.camera0"]
    poses = np.concatenate(
        [arrays[f"robot0_{part}"] for part in ("eef_pos", "eef_rot_axis_angle", "gripper_width")], axis=1
    )
    np.testing.assert_array_equal(all_of(store, "observation.images.camera0"), arrays["camera0_rgb"])
    np.testing.assert_array_equal(all_of(store, "observation.state"), poses)
    np.testing.assert_array_equal(all_of(store, "action"), poses)


@pytest.mark.parametrize("suffix", [".zarr", ".zarr.zip"])
def test_from_a_buffer_to_a_store_and_back(tmp_path, quiet, suffix):
    arrays = umi()
    write_buffer(str(tmp_path / "umi.zarr"), arrays)
    store = import_replay_buffer(tmp_path / "umi.zarr", tmp_path / "store.zarr", fps=60, console=quiet)
    again = tmp_path / f"again{suffix}"
    convert(store.path, again, format="replay_buffer", console=quiet)
    opened = ZipStore(again, mode="r") if suffix == ".zarr.zip" else str(again)
    root = zarr.open_group(opened, mode="r", zarr_format=2)
    np.testing.assert_array_equal(root["meta/episode_ends"][:], ENDS)
    for name in ("camera0_rgb", "robot0_eef_pos", "robot0_eef_rot_axis_angle", "robot0_gripper_width"):
        found = root[f"data/{name}"]
        assert found.dtype == arrays[name].dtype
        np.testing.assert_array_equal(found[:], arrays[name])
    np.testing.assert_array_equal(root["data/action"][:], all_of(store, "action"))
    np.testing.assert_allclose(root["data/timestamp"][:8], np.array([0, 1, 2, 3, 4, 0, 0, 1]) / 60)
    back = import_replay_buffer(again, tmp_path / "back.zarr", console=quiet)
    assert back.fingerprint() == store.fingerprint()
    assert back.attributes | {"source": None} == store.attributes | {"source": None}


@pytest.mark.parametrize("name", ["demos.zarr.zip", "buffer.zarr"])
def test_from_a_store_to_a_buffer_and_back(make_store, tmp_path, quiet, name):
    store = make_store(6)
    made = tmp_path / "made" / name
    convert(store.path, made, format=None if name.endswith(".zip") else "replay_buffer", console=quiet)
    assert [path.name for path in made.parent.iterdir()] == [name]
    convert(made, tmp_path / "back.zarr", console=quiet)
    back = DemoStore.open(tmp_path / "back.zarr")
    assert_came_back(back, store, 6)


def test_from_robomimics_names_through_lerobot(tmp_path, quiet):
    write_buffer(str(tmp_path / "umi.zarr"), umi())
    store = import_replay_buffer(tmp_path / "umi.zarr", tmp_path / "store.zarr", fps=60, console=quiet)
    convert(store.path, tmp_path / "lerobot", use_videos=False, console=quiet)
    convert(tmp_path / "lerobot", tmp_path / "back.zarr", console=quiet)
    back = DemoStore.open(tmp_path / "back.zarr")
    assert back.fingerprint() == store.fingerprint()
    export_replay_buffer(back, tmp_path / "again.zarr", console=quiet)
    assert "robot0_eef_rot_axis_angle" in zarr.open_group(str(tmp_path / "again.zarr"), mode="r")["data"]


def test_channels_first_and_resizing(tmp_path, quiet):
    arrays = pusht() | {"img": np.full((ENDS[-1], 3, 20, 24), 7, np.uint8)}
    arrays["img"][:, 1] = 200
    write_buffer(str(tmp_path / "pusht.zarr"), arrays)
    store = import_replay_buffer(tmp_path / "pusht.zarr", tmp_path / "store.zarr", fps=10, image_size=8, console=quiet)
    assert store.features["observation.images.img"] == Feature((8, 8, 3), "uint8")
    assert np.unique(all_of(store, "observation.images.img").reshape(-1, 3), axis=0).tolist() == [[7, 200, 7]]


def steps_of(*rates: float) -> np.ndarray:
    """Timestamps of the three episodes, each at its own rate."""
    lengths = np.diff(ENDS, prepend=0)
    return np.concatenate([100 + np.arange(n) / rate for n, rate in zip(lengths, rates, strict=True)])


def test_timestamps_tell_the_rate(tmp_path, quiet):
    jitter = np.random.default_rng(0).uniform(-0.01, 0.01, ENDS[-1])
    write_buffer(str(tmp_path / "real.zarr"), pusht() | {"timestamp": steps_of(10, 10, 10) + jitter})
    store = import_replay_buffer(tmp_path / "real.zarr", tmp_path / "store.zarr", console=quiet)
    assert store.fps == 10
    assert not any("timestamp" in words for words in store.attributes["given_up"])


@pytest.fixture
def jpeg_xl_buffer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A replay buffer as UMI's are, in a codec of imagecodecs that is not registered (yet)."""
    registry = numcodecs.registry
    monkeypatch.setattr(registry, "entries", {})
    monkeypatch.setattr(registry, "codec_registry", dict(registry.codec_registry))
    codec = imagecodecs.numcodecs.Jpegxl(lossless=True, numthreads=1)
    numcodecs.register_codec(imagecodecs.numcodecs.Jpegxl)
    root = zarr.open_group(str(tmp_path / "umi.zarr"), mode="w", zarr_format=2)
    for name, content in umi().items():
        settings = {"chunks": (1, *content.shape[1:]), "compressors": codec} if content.ndim == 4 else {}
        root.create_array(f"data/{name}", data=content, **settings)
    root.create_array("meta/episode_ends", data=ENDS)
    del registry.codec_registry[JPEG_XL]
    return tmp_path / "umi.zarr"


def test_missing_codec_is_named(jpeg_xl_buffer, tmp_path, quiet, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    monkeypatch.setitem(sys.modules, "imagecodecs.numcodecs", None)
    with pytest.raises(
        UserError, match=r"camera0_rgb compressed with .*pip install 'pixio-robot\[imagecodecs\]'"
    ) as caught:
        import_replay_buffer(jpeg_xl_buffer, tmp_path / "store.zarr", fps=60, console=quiet)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["umi.zarr"]


def test_jpeg_xl_as_umi_has_it(jpeg_xl_buffer, tmp_path, quiet):
    store = import_replay_buffer(jpeg_xl_buffer, tmp_path / "store.zarr", fps=60, console=quiet)
    np.testing.assert_array_equal(all_of(store, "observation.images.camera0"), umi()["camera0_rgb"])


def buffer(change: Callable[[Arrays], Arrays], ends: np.ndarray = ENDS) -> Callable[[Path], None]:
    return lambda path: write_buffer(str(path), change(pusht()), ends=ends)


def drop(*names: str) -> Callable[[Path], None]:
    return buffer(lambda arrays: {name: content for name, content in arrays.items() if name not in names})


def harm(name: str, content: bytes | None) -> Callable[[Path], None]:
    """Overwrite a file of a replay buffer, or remove it."""

    def make(path: Path) -> None:
        write_buffer(str(path), pusht())
        if content is None:
            (path / name).unlink()
        else:
            assert (path / name).exists()
            (path / name).write_bytes(content)

    return make


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (drop("img"), "has no images"),
        (drop("action"), "has no action"),
        (buffer(lambda arrays: arrays | {"img": arrays["img"] + 300}), "neither whole numbers from 0 to 255"),
        (buffer(lambda arrays: arrays | {"timestamp": steps_of(10, 10, 20)}), "mixed frame rates"),
        (buffer(lambda arrays: arrays | {"timestamp": steps_of(20, 20, 20)}), "mixed frame rates"),
        (buffer(lambda arrays: arrays | {"timestamp": steps_of(10, 10, 11)}), "mixed frame rates"),
        (buffer(lambda arrays: arrays | {"timestamp": np.round(steps_of(10, 10, 10))}), "not evenly 0.1 s apart"),
        (buffer(lambda arrays: arrays | {"state": arrays["state"][:-1]}), "data/state has 13 steps of 14"),
        (buffer(lambda arrays: arrays, ends=np.array([5, 5, 14])), "does not rise"),
        (buffer(lambda arrays: arrays, ends=np.array([], np.int64)), "no episodes"),
        (harm("data/img/2.0.0.0", b"cut off"), "data/img, steps 6 to 13, cannot be read"),
        (harm("data/img/2.0.0.0", None), "data/img, steps 6 to 13, cannot be read"),
        (harm("data/action/0.0", b"cut off"), "data/action, steps 0 to 4, cannot be read"),
        (harm("data/action/.zarray", b"{"), "cannot be read"),
        (harm("meta/episode_ends/0", b""), "meta/episode_ends cannot be read"),
        (lambda path: zarr.open_group(str(path), mode="w", zarr_format=2), "no replay buffer"),
    ],
)
def test_bad_buffers_are_refused_and_leave_nothing(tmp_path, quiet, make, says):
    make(tmp_path / "pusht.zarr")
    with pytest.raises(UserError, match=says) as caught:
        convert(tmp_path / "pusht.zarr", tmp_path / "store.zarr", fps=10, console=quiet)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["pusht.zarr"]


def test_unknown_rate_is_refused(tmp_path, quiet):
    write_buffer(str(tmp_path / "pusht.zarr"), pusht())
    with pytest.raises(UserError, match="add fps="):
        convert(tmp_path / "pusht.zarr", tmp_path / "store.zarr", console=quiet)


def cut_in_half(path: Path) -> None:
    write_zip(path, umi())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_byte_of_a_frame(path: Path) -> None:
    write_zip(path, umi())
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("data/camera0_rgb/1.0.0.0")
    content = bytearray(path.read_bytes())
    content[member.header_offset + 30 + len(member.filename) + member.file_size // 2] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "says"), [(cut_in_half, "damaged or incomplete"), (flip_a_byte_of_a_frame, "camera0_rgb.*cannot be read")]
)
def test_damaged_zip_is_refused(tmp_path, quiet, make, says):
    make(tmp_path / "umi.zarr.zip")
    with pytest.raises(UserError, match=says) as caught:
        convert(tmp_path / "umi.zarr.zip", tmp_path / "store.zarr", fps=60, console=quiet)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["umi.zarr.zip"]


@pytest.mark.parametrize("name", ["buffer.zarr.zip", "buffer.zarr"])
def test_a_damaged_store_leaves_nothing(make_store, tmp_path, quiet, name):
    store = make_store(6)
    (store.path / "data/action/c/0/0").write_bytes(b"cut off")
    with pytest.raises(UserError, match="damaged"):
        export_replay_buffer(store, tmp_path / name, console=quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["demos.zarr"]


@pytest.mark.parametrize(
    ("destination", "options", "says"),
    [
        ("other.zarr", {}, "named like a demonstration store"),
        ("other", {"format": "robomimik"}, "Did you mean 'robomimic'"),
        ("other", {"fps": 10}, "fps=10 has no effect"),
        ("other", {"image_size": 64}, "image_size=64 has no effect"),
        ("demos.zarr", {"format": "replay_buffer"}, "exists"),
    ],
)
def test_what_a_store_cannot_become(make_store, tmp_path, quiet, destination, options, says):
    store = make_store(2)
    with pytest.raises(UserError, match=says):
        convert(store.path, tmp_path / destination, **options, console=quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["demos.zarr"]


@pytest.mark.parametrize(
    ("destination", "options", "says"),
    [
        ("store.hdf5", {}, "convert to a store first"),
        ("store.zarr", {"format": "lerobot"}, "format=lerobot has no effect"),
    ],
)
def test_what_a_buffer_cannot_become(tmp_path, quiet, destination, options, says):
    write_buffer(str(tmp_path / "pusht.zarr"), pusht())
    with pytest.raises(UserError, match=says):
        convert(tmp_path / "pusht.zarr", tmp_path / destination, fps=10, **options, console=quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["pusht.zarr"]


def test_zarray_json_is_of_version_2(make_store, tmp_path, quiet):
    export_replay_buffer(make_store(2), tmp_path / "buffer.zarr", console=quiet)
    described = json.loads((tmp_path / "buffer.zarr/data/front_image/.zarray").read_text())
    assert described["zarr_format"] == 2
    assert described["compressor"]["id"] == "blosc"
    assert described["chunks"][1:] == [16, 20, 3]
