"""Replay buffers and robomimic files with cameras of any kind: converted to the same pixels, or refused with the reason."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore
from pixio_robot.demos.formats.conversion import convert

T = 9
ENDS = np.array([4, 9])
RGB = np.random.default_rng(0).integers(0, 256, (T, 10, 12, 3), np.uint8)
GREY = RGB[..., :1]
ACTION = np.random.default_rng(1).normal(size=(T, 2)).astype(np.float32)
STATE = np.random.default_rng(2).normal(size=(T, 3))


def write_buffer(path: Path, arrays: Mapping[str, np.ndarray], version: int = 2, ends: np.ndarray = ENDS) -> None:
    group = zarr.open_group(str(path), mode="w", zarr_format=3 if version == 3 else 2)
    for name, values in arrays.items():
        group.create_array(f"data/{name}", data=values)
    group.create_array("meta/episode_ends", data=ends)


def write_robomimic(path: Path, arrays: Mapping[str, np.ndarray], rate: object = 20, **more: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file.create_group("data").attrs["env_args"] = json.dumps({"env_kwargs": {"control_freq": rate}})
        for demo, steps in enumerate((slice(0, 4), slice(4, T))):
            for name, values in arrays.items():
                file[f"data/demo_{demo}/{'actions' if name == 'action' else f'obs/{name}'}"] = values[steps]
            for name, values in more.items():
                file[f"data/demo_{demo}/{name}"] = values[steps]


def converted(source: Path, **options: int) -> tuple[DemoStore, str]:
    said = io.StringIO()
    target = source.with_name("made.zarr")
    convert(source, target, console=Console(file=said, width=10_000), **options)  # pyright: ignore[reportArgumentType]
    store = DemoStore.open(target)
    assert said.getvalue().count("left out or changed") == ("given_up" in store.attributes)
    assert f"{target}: {store.num_episodes} episodes, {store.num_steps} steps, " in said.getvalue()
    return store, "; ".join(store.attributes.get("given_up", []))


FRAMES = [
    (RGB, RGB, ""),
    (RGB.transpose(0, 3, 1, 2), RGB, ""),
    (RGB.astype(np.float32), RGB, ""),
    (RGB.transpose(0, 3, 1, 2) / 255, RGB, "the range of cam: 0 to 1 became 0 to 255"),
    ((RGB / 255).astype(np.float16), RGB, "the range of cam: 0 to 1 became 0 to 255"),
    ((RGB > 127).astype(np.float32), (RGB > 127) * np.uint8(255), "the range of cam: 0 to 1 became 0 to 255"),
    (RGB > 127, (RGB > 127) * np.uint8(255), "the range of cam: 0 to 1 became 0 to 255"),
    (RGB.astype(np.uint16) * 257, RGB, "the range of cam: 0 to 65535 became 0 to 255"),
    (RGB.astype(np.int64), RGB, ""),
    (GREY, np.repeat(GREY, 3, -1), ""),
    (GREY[..., 0], np.repeat(GREY, 3, -1), "cam, bytes of (10, 12): taken as a grey camera"),
    (np.concatenate([RGB, GREY], -1), RGB, "the fourth channel of cam"),
    (np.concatenate([RGB, GREY], -1).transpose(0, 3, 1, 2), RGB, "the fourth channel of cam"),
]


@pytest.mark.parametrize(("values", "expected", "given_up"), FRAMES)
def test_cameras_of_any_range_and_channels(tmp_path, values, expected, given_up):
    arrays = {"cam": values, "agent_pos": STATE, "action": ACTION}
    write_buffer(tmp_path / "buffer.zarr", arrays)
    store, said = converted(tmp_path / "buffer.zarr", fps=10)
    assert said == given_up
    np.testing.assert_array_equal(store.read("observation.images.cam", 0, T), expected)
    np.testing.assert_array_equal(store.read("observation.state", 0, T), STATE.astype(np.float32))
    np.testing.assert_array_equal(store.read("action", 0, T), ACTION)
    if "grey" in given_up:  # robomimic's greys have a channel
        return
    (tmp_path / "robomimic").mkdir()
    write_robomimic(tmp_path / "robomimic/file.hdf5", arrays)
    store, said = converted(tmp_path / "robomimic/file.hdf5")
    assert given_up in said
    np.testing.assert_array_equal(store.read("observation.images.cam", 0, T), expected)


def test_what_is_no_camera_and_no_state_is_said(tmp_path):
    depth = np.zeros((T, 10, 12, 1), np.float32)
    more = {
        "keypoint": np.zeros((T, 9, 2)),
        "cam_depth": depth,
        "poses": np.zeros((T, 9, 4, 4)),
        "history": RGB[:, None],
    }
    arrays = {"cam": RGB, "state": STATE, "action": (ACTION * 10).astype(np.int32), **more}
    write_buffer(tmp_path / "buffer.zarr", arrays)
    store, said = converted(tmp_path / "buffer.zarr", fps=10)
    assert store.image_keys == ["observation.images.cam"]
    assert said == "cam_depth (no colours); history; keypoint; poses; the dtype int32 of action: float32 instead"


def test_steps_behind_the_last_episode_and_folders_of_arrays(tmp_path):
    longer = np.concatenate([STATE, STATE[:2]])
    write_buffer(
        tmp_path / "buffer.zarr", {"obs/cam": RGB, "obs/agent_pos": longer, "action": ACTION}, ends=ENDS.astype(float)
    )
    store, said = converted(tmp_path / "buffer.zarr", fps=10)
    assert said == "steps behind the last episode of obs/agent_pos (2)"
    assert store.image_keys == ["observation.images.cam"]
    np.testing.assert_array_equal(store.read("observation.state", 0, T), STATE.astype(np.float32))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("prefix", ["", "buffer.zarr/"])
def test_a_replay_buffer_of_either_zarr_zipped_with_its_folder_or_without(tmp_path, version, prefix):
    write_buffer(tmp_path / "buffer.zarr", {"cam": RGB, "agent_pos": STATE, "action": ACTION}, version)
    assert converted(tmp_path / "buffer.zarr", fps=10)[0].num_steps == T
    (tmp_path / "zip").mkdir()
    zip_folder(tmp_path / "buffer.zarr", tmp_path / "zip/buffer.zarr.zip", prefix)
    store, _ = converted(tmp_path / "zip/buffer.zarr.zip", fps=10)
    np.testing.assert_array_equal(store.read("observation.images.cam", 0, T), RGB)


def zip_folder(folder: Path, file: Path, prefix: str) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if "deflated" in file.name else zipfile.ZIP_STORED) as archive:
        for member in sorted(member for member in folder.rglob("*") if member.is_file()):
            archive.write(member, prefix + member.relative_to(folder).as_posix())
        if prefix:
            archive.writestr(f"__MACOSX/{prefix}._zarr.json", b"")


@pytest.mark.parametrize("name", ["stored.zip", "deflated.zip"])
def test_a_store_zipped_with_its_folder(make_store, tmp_path, name):
    store = make_store(4)
    zip_folder(store.path, tmp_path / name, "demos.zarr/")
    opened = DemoStore.open(tmp_path / name)
    assert opened.fingerprint() == store.fingerprint()
    for key in store.features:
        np.testing.assert_array_equal(opened.read(key, 0, store.num_steps), store.read(key, 0, store.num_steps))


def test_a_zip_file_of_something_else_lists_what_is_there(tmp_path):
    with zipfile.ZipFile(tmp_path / "holiday.zip", "w") as archive:
        archive.writestr("beach/1.jpg", b"")
        archive.writestr("notes.txt", b"")
    with pytest.raises(UserError, match=r"neither a demonstration store .* it holds beach, notes\.txt"):
        convert(tmp_path / "holiday.zip", tmp_path / "made.zarr")


def test_what_cannot_be_opened_is_called_what_it_is(tmp_path):
    with zipfile.ZipFile(tmp_path / "locked.zip", "w") as archive:
        archive.writestr("zarr.json", "{}")
    locked = bytearray((tmp_path / "locked.zip").read_bytes())
    locked[6] |= 1
    locked[locked.find(b"PK\1\2") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(locked)
    with tarfile.open(tmp_path / "store.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "locked.zip", "store.zarr/zarr.json")
    for name, says in (
        ("locked.zip", "locked.zip is a zip file that cannot be read .*encrypted"),
        ("store.tar.gz", "store.tar.gz is a tar file: unpack it"),
        ("nowhere.zarr", "There is nothing at .*nowhere.zarr: give the path"),
    ):
        with pytest.raises(UserError, match=says):
            convert(tmp_path / name, tmp_path / "made.zarr")
    for name in ("locked.zip", "nowhere.zarr"):
        with pytest.raises(UserError, match="cannot be read|nothing at"):
            DemoStore.open(tmp_path / name)
    with pytest.raises(UserError, match=r"nothing at ~/lift\.zarr \(shells leave ~ as it is"):
        DemoStore.open("~/lift.zarr")


def negative(arrays: dict[str, np.ndarray]) -> None:
    arrays["cam"] = RGB / 127.5 - 1


def fractions(arrays: dict[str, np.ndarray]) -> None:
    arrays["cam"] = RGB + 0.25


def brighter_later(arrays: dict[str, np.ndarray]) -> None:
    arrays["cam"] = np.where(np.arange(T)[:, None, None, None] < 5, RGB / 255, RGB)


def bad_pixel(arrays: dict[str, np.ndarray]) -> None:
    arrays["cam"] = RGB.astype(np.float32)
    arrays["cam"][6, 0, 0, 0] = np.nan


def bad_number(arrays: dict[str, np.ndarray]) -> None:
    arrays["agent_pos"] = STATE.copy()
    arrays["agent_pos"][6, 1] = np.inf


def of_three(arrays: dict[str, np.ndarray]) -> None:
    arrays["cam"] = RGB[:, :3]


def only_history(arrays: dict[str, np.ndarray]) -> None:
    arrays["cam"] = RGB[:, None]


@pytest.mark.parametrize(
    ("alter", "says"),
    [
        (negative, "cam of values from -1 to 1 in episode 0"),
        (fractions, "cam of float64 from 0.25 to 255.25 in episode 0"),
        (brighter_later, "cam of values from 0 to 255 where others reach from 0 to 1 in episode 1"),
        (bad_pixel, "cam of values from nan to nan .*in episode 1"),
        (bad_number, "observation.state of episode 1, step 2, dimension 1 is inf"),
        (of_three, r"cam of \(3, 12, 3\) a step, in which the channels may be the first or the last"),
        (only_history, r"has no images, only .*cam of \(1, 10, 12, 3\)"),
    ],
)
@pytest.mark.parametrize("write", [write_buffer, write_robomimic])
def test_values_without_a_meaning_are_refused(tmp_path, write: Callable[..., None], alter, says):
    arrays = {"cam": RGB, "agent_pos": STATE, "action": ACTION}
    alter(arrays)
    source = tmp_path / ("source.zarr" if write is write_buffer else "source.hdf5")
    write(source, arrays)
    with pytest.raises(UserError, match=says):
        convert(
            source,
            tmp_path / "made.zarr",
            fps=10 if write is write_buffer else None,
            console=Console(file=io.StringIO()),
        )
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


@pytest.mark.parametrize(
    "ends",
    [
        np.array([5, 4]),
        np.array([4.5, 9]),
        np.array([], np.int64),
        np.array([[4, 9]]),
        np.array([4, np.inf]),
        np.array([4, 2**63], np.uint64),
    ],
)
def test_ends_that_are_none_are_refused(tmp_path, ends):
    write_buffer(tmp_path / "buffer.zarr", {"cam": RGB, "agent_pos": STATE, "action": ACTION}, ends=ends)
    with pytest.raises(UserError, match="does not rise in whole numbers"):
        convert(tmp_path / "buffer.zarr", tmp_path / "made.zarr", fps=10)


PLAIN = {"cam": RGB, "robot0_eef_pos": STATE, "action": ACTION}


@pytest.mark.parametrize(("rate", "fps"), [(20, 20), (20.0, 20), ("20", 20)])
def test_control_rates_as_others_write_them(tmp_path, rate, fps):
    write_robomimic(tmp_path / "file.hdf5", PLAIN, rate)
    assert converted(tmp_path / "file.hdf5")[0].fps == fps


@pytest.mark.parametrize("rate", ["fast", 0, -5, [20], True])
def test_control_rates_that_are_none_are_refused(tmp_path, rate):
    write_robomimic(tmp_path / "file.hdf5", PLAIN, rate)
    with pytest.raises(UserError, match="which is no rate in Hz"):
        convert(tmp_path / "file.hdf5", tmp_path / "made.zarr")


def test_what_robomimic_has_beside_observations_is_said(tmp_path):
    rewards = np.linspace(0, 1, T)
    write_robomimic(tmp_path / "file.hdf5", PLAIN, states=np.zeros((T, 5)), actions_abs=ACTION, rewards=rewards)
    with h5py.File(tmp_path / "file.hdf5", "a") as file:
        file["data/demo_7/actions"] = np.zeros((0, 2))
        file.move("data/demo_1", "data/demo_12")
        file.create_dataset("mask/train", data=["demo_0", "demo_12"], dtype=h5py.string_dtype())
        file["mask/valid"] = np.array(["demo_12", "demo_77"], "S12")
    store, said = converted(tmp_path / "file.hdf5")
    assert store.attributes["filter_keys"] == {"train": [0, 1], "valid": [1]}
    assert store.episode_success.tolist() == [-1, -1]
    assert said == (
        "actions_abs, states of every demonstration; demo_7, of no steps; demo_77 of the filter keys, which are not there; "
        "the numbers of demonstrations, 0, 12: counted from 0 instead; "
        "rewards, which are not 0 or 1 and so do not say which episodes succeeded"
    )


def test_observations_that_are_no_numbers_and_counts_that_differ_are_said(tmp_path):
    labels = np.zeros((T, 10, 12, 1), np.int32)
    write_robomimic(tmp_path / "file.hdf5", PLAIN | {"cam_segmentation_instance": labels}, rewards=np.zeros(T))
    with h5py.File(tmp_path / "file.hdf5", "a") as file:
        for number in range(2):
            demo = file[f"data/demo_{number}"]
            demo["obs/words"] = np.array([b"lift"] * len(demo["actions"]))
            demo["obs/hand/left"] = np.zeros((len(demo["actions"]), 4))
        file["data/demo_0"].attrs["num_samples"] = 3
        del file["data/demo_1/rewards"]
        file["data/demo_1/rewards"] = np.ones(2)
        file["data/demo_1/obs/late"] = np.zeros((5, 2))
        file["mask/20_percent/train"] = np.array([b"demo_0"])
        file["mask/all"] = b"demo_0"
    store, said = converted(tmp_path / "file.hdf5")
    assert store.image_keys == ["observation.images.cam"]
    assert said == (
        "cam_segmentation_instance (no colours); "
        "hand, late, words of obs, which the first demonstration has not as numbers of every step; "
        "num_samples of demo_0: these have another number of steps; "
        "mask/20_percent (no list), mask/all (no list) of the filter keys, which are not there; "
        "rewards, which are not one for every step and so do not say which episodes succeeded"
    )


def test_actions_without_numbers_are_refused_and_those_of_two_axes_said(tmp_path):
    write_robomimic(tmp_path / "none.hdf5", PLAIN | {"action": np.zeros((T, 0))})
    with pytest.raises(UserError, match="has actions that are no numbers of every step"):
        convert(tmp_path / "none.hdf5", tmp_path / "made.zarr")
    write_robomimic(tmp_path / "group.hdf5", PLAIN)
    with h5py.File(tmp_path / "group.hdf5", "a") as file:
        del file["data/demo_1/actions"]
        file["data/demo_1/actions/arm"] = np.zeros((5, 2))
    with pytest.raises(UserError, match="has /data/demo_1/actions that is no array of steps"):
        convert(tmp_path / "group.hdf5", tmp_path / "made.zarr")
    write_buffer(tmp_path / "buffer.zarr", PLAIN | {"action": np.zeros((T, 8, 2), np.float32)})
    group = zarr.open_group(str(tmp_path / "buffer.zarr"), mode="r+")
    group.create_array("meta/fps", data=np.array([30]))
    _, said = converted(tmp_path / "buffer.zarr", fps=10)
    assert said == "the shape (8, 2) of action: 16 numbers behind each other; meta/fps"


def test_robomimic_finds_what_it_asks_of_an_export(make_store, tmp_path):
    store = make_store(3)
    convert(store.path, tmp_path / "out.hdf5", console=Console(file=io.StringIO()))
    with h5py.File(tmp_path / "out.hdf5", "r", swmr=True, libver="latest") as file:  # as robomimic opens its datasets
        env_args = json.loads(file["data"].attrs["env_args"])
        assert env_args == {"env_name": "toy", "type": 2, "env_kwargs": {"control_freq": 20}}
        for number in range(3):
            demo = file[f"data/demo_{number}"]
            assert demo["next_obs"].keys() == demo["obs"].keys()
            for name, values in demo["obs"].items():
                after = demo[f"next_obs/{name}"]
                np.testing.assert_array_equal(after[:-1], values[1:])
                np.testing.assert_array_equal(after[-1], values[-1])
    # Steps to come take no room.
    pixels = sum(store.read(key, 0, store.num_steps).nbytes for key in store.image_keys)
    assert (tmp_path / "out.hdf5").stat().st_size < 1.5 * pixels + 200_000
