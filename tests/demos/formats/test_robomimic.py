import json
import tracemalloc
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import h5py
import numpy as np
import pytest
from numbered_episodes import FEATURES, append_numbered, assert_came_back
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore, Feature
from pixio_robot.demos.formats.conversion import convert
from pixio_robot.demos.formats.robomimic import import_robomimic
from pixio_robot.demos.formats.robomimic_export import export_robomimic

ENV_ARGS = {"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 20, "robots": ["Panda"]}}
NUMBERS = [0, 2, 10]  # of the demonstrations in the file: 10 sorts before 2 as text
LENGTHS = [4, 1, 7]
STATE = {"robot0_eef_pos": (3,), "robot0_eef_quat": (4,), "robot0_gripper_qpos": (2,)}


@pytest.fixture
def quiet() -> Console:
    return Console(file=StringIO())


def demonstration(number: int, n_steps: int) -> dict[str, np.ndarray]:
    """The arrays of a demonstration by their place in its group; states are float64, as robosuite's are."""
    rng = np.random.default_rng(number)

    def values(*shape: int) -> np.ndarray:
        return rng.normal(size=(n_steps, *shape)).astype(np.float32).astype(np.float64)

    arrays = {
        "actions": values(7),
        "states": values(32),
        "rewards": np.zeros(n_steps),
        "dones": (np.arange(n_steps) == n_steps - 1).astype(np.int64),
        "obs/agentview_image": rng.integers(0, 256, (n_steps, 12, 16, 3), np.uint8),
        "obs/robot0_eye_in_hand_image": rng.integers(0, 256, (n_steps, 12, 12, 3), np.uint8),
        "obs/agentview_depth": values(12, 16, 1),
        "obs/object": values(10),
        "obs/robot0_joint_pos": values(7),
    }
    arrays |= {f"obs/{name}": values(*shape) for name, shape in STATE.items()}
    arrays["next_obs/object"] = values(10)
    arrays["rewards"][-1] = number != 2
    return arrays


def write_robomimic(path: Path, leave_out: tuple[str, ...] = (), env_args: dict | None = ENV_ARGS) -> None:
    """A file as robomimic's scripts write it, with h5py alone."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = sum(LENGTHS)
        if env_args is not None:
            data.attrs["env_args"] = json.dumps(env_args)
        for number, n_steps in zip(NUMBERS, LENGTHS, strict=True):
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"] = n_steps
            demo.attrs["model_file"] = "<mujoco/>" * 10000
            for name, values in demonstration(number, n_steps).items():
                if name not in leave_out:
                    compression = "gzip" if name.endswith("image") else None
                    demo.create_dataset(name, data=values, compression=compression)
        file["mask/train"] = np.array([b"demo_0", b"demo_10"])
        file["mask/valid"] = np.array([b"demo_2"])


def test_observations_become_cameras_and_a_state(tmp_path, quiet):
    write_robomimic(tmp_path / "lift.hdf5")
    store = import_robomimic(tmp_path / "lift.hdf5", tmp_path / "lift.zarr", console=quiet)
    assert store.features == {
        "observation.images.agentview": Feature((12, 16, 3), "uint8"),
        "observation.images.robot0_eye_in_hand": Feature((12, 12, 3), "uint8"),
        "observation.state": Feature((9,), "float32"),
        "action": Feature((7,), "float32"),
    }
    assert store.fps == 20
    assert store.episode_ends.tolist() == np.cumsum(LENGTHS).tolist()
    assert store.episode_tasks == ["Lift"] * 3
    assert store.episode_success.tolist() == [1, 0, 1]
    assert store.episode_seeds.tolist() == [-1, -1, -1]
    for index, (number, n_steps) in enumerate(zip(NUMBERS, LENGTHS, strict=True)):
        found, expected = store.episode(index), demonstration(number, n_steps)
        np.testing.assert_array_equal(found["observation.images.agentview"], expected["obs/agentview_image"])
        np.testing.assert_array_equal(
            found["observation.images.robot0_eye_in_hand"], expected["obs/robot0_eye_in_hand_image"]
        )
        state = np.concatenate([expected[f"obs/{name}"] for name in STATE], axis=1)
        np.testing.assert_array_equal(found["observation.state"], state)
        np.testing.assert_array_equal(found["action"], expected["actions"])
    assert store.attributes["given_up"][:3] == ["agentview_depth (no colours)", "object", "robot0_joint_pos"]
    assert store.attributes["env_args"] == ENV_ARGS
    assert store.attributes["filter_keys"] == {"train": [0, 2], "valid": [1]}


def test_from_a_file_to_a_store_and_back(tmp_path, quiet):
    write_robomimic(tmp_path / "lift.hdf5")
    store = import_robomimic(tmp_path / "lift.hdf5", tmp_path / "lift.zarr", console=quiet)
    export_robomimic(store, tmp_path / "again.hdf5", console=quiet)
    with h5py.File(tmp_path / "again.hdf5", "r") as file:
        assert set(file["data"]) == {"demo_0", "demo_1", "demo_2"}
        assert file["data"].attrs["total"] == sum(LENGTHS)
        assert json.loads(file["data"].attrs["env_args"]) == ENV_ARGS
        for index, (number, n_steps) in enumerate(zip(NUMBERS, LENGTHS, strict=True)):
            demo, expected = file[f"data/demo_{index}"], demonstration(number, n_steps)
            assert demo.attrs["num_samples"] == n_steps
            assert set(demo["obs"]) == {*STATE, "agentview_image", "robot0_eye_in_hand_image"}
            for name in ["actions", "rewards", "dones", *(f"obs/{name}" for name in demo["obs"])]:
                np.testing.assert_array_equal(demo[name][:], expected[name])
            assert demo["obs/agentview_image"].dtype == np.uint8
        assert file["mask/train"][:].tolist() == [b"demo_0", b"demo_2"]
        assert file["mask/valid"][:].tolist() == [b"demo_1"]
    again = import_robomimic(tmp_path / "again.hdf5", tmp_path / "again.zarr", console=quiet)
    assert again.fingerprint() == store.fingerprint()
    assert again.attributes | {"source": None} == store.attributes | {"source": None}


@pytest.mark.parametrize(
    ("attributes", "described"),
    [
        ({}, ("unknown", 2)),
        ({"env": {"type": "pixio_robosuite", "task": "Stack"}}, ("Stack", 1)),
        ({"env": {"type": "pixio_pusht", "task": "PushT"}}, ("PushT", 2)),
        ({"env_args": {"env_name": "Lift", "env_version": "1.5"}}, ("Lift", 2)),  # of a file that left its type out
    ],
)
def test_a_file_has_what_robomimics_readers_ask_for(tmp_path, quiet, attributes, described):
    """`get_env_metadata_from_dataset` wants a name, a type and arguments; `SequenceDataset` the rest, also of what comes next."""
    store = DemoStore.create(tmp_path / "demos.zarr", FEATURES, {"fps": 20, **attributes})
    append_numbered(store, 0)
    append_numbered(store, 5)
    store.close()
    export_robomimic(store, tmp_path / "demos.hdf5", console=quiet)
    with h5py.File(tmp_path / "demos.hdf5", "r") as file:
        env_meta = json.loads(file["data"].attrs["env_args"])
        assert (env_meta["env_name"], env_meta["type"]) == described
        assert env_meta["env_kwargs"]["control_freq"] == 20
        assert file["data"].attrs["total"] == store.num_steps
        for index in range(2):
            demo, episode = file[f"data/demo_{index}"], store.episode(index)
            assert demo.attrs["num_samples"] == len(demo["actions"]) == len(demo["rewards"]) == len(demo["dones"])
            assert set(demo["obs"]) == set(demo["next_obs"]) >= {"front_image", "wrist_image"}
            for name, values in demo["obs"].items():
                shifted = np.concatenate([values[1:], values[-1:]])
                np.testing.assert_array_equal(demo[f"next_obs/{name}"][:], shifted)
            np.testing.assert_array_equal(demo["obs/front_image"][:], episode["observation.images.front"])


def test_from_a_store_to_a_file_and_back(make_store, tmp_path, quiet):
    store = make_store(6)
    convert(store.path, tmp_path / "demos.hdf5", console=quiet)
    convert(tmp_path / "demos.hdf5", tmp_path / "back.zarr", console=quiet)
    back = DemoStore.open(tmp_path / "back.zarr")
    assert_came_back(back, store, 6)
    with h5py.File(tmp_path / "demos.hdf5", "r") as file:
        assert file["data/demo_0/obs/front_image"].shape == (len(file["data/demo_0/actions"]), 16, 20, 3)
        assert [file[f"data/demo_{index}/rewards"][-1] for index in range(6)] == [1, 0, 0, 1, 0, 0]


def test_without_a_robots_pose_all_low_dimensional_arrays_are_the_state(tmp_path, quiet):
    write_robomimic(tmp_path / "lift.hdf5", leave_out=tuple(f"obs/{name}" for name in STATE))
    store = import_robomimic(tmp_path / "lift.hdf5", tmp_path / "lift.zarr", image_size=8, console=quiet)
    expected = demonstration(0, LENGTHS[0])
    state = np.concatenate([expected["obs/object"], expected["obs/robot0_joint_pos"]], axis=1)
    np.testing.assert_array_equal(store.episode(0)["observation.state"], state)
    assert store.features["observation.images.agentview"] == Feature((8, 8, 3), "uint8")
    # The way back of a store that resized its frames.
    export_robomimic(store, tmp_path / "again.hdf5", console=quiet)
    with h5py.File(tmp_path / "again.hdf5", "r") as file:
        frames = store.episode(0)["observation.images.agentview"]
        np.testing.assert_array_equal(file["data/demo_0/obs/agentview_image"][:], frames)


def test_rate_given_and_success_unknown(tmp_path, quiet):
    write_robomimic(tmp_path / "lift.hdf5", leave_out=("rewards",), env_args=None)
    store = import_robomimic(tmp_path / "lift.hdf5", tmp_path / "lift.zarr", fps=15, console=quiet)
    assert store.fps == 15
    assert store.episode_success.tolist() == [-1, -1, -1]
    assert store.episode_tasks == ["lift"] * 3


def test_instructions_become_tasks(tmp_path, quiet):
    write_robomimic(tmp_path / "lift.hdf5")
    with h5py.File(tmp_path / "lift.hdf5", "r+") as file:
        file["data"].attrs["problem_info"] = json.dumps({"language_instruction": "lift the cube"})  # LIBERO
        file["data/demo_2"].attrs["ep_meta"] = json.dumps({"lang": "lift the red cube"})  # RoboCasa
    store = import_robomimic(tmp_path / "lift.hdf5", tmp_path / "lift.zarr", console=quiet)
    assert store.episode_tasks == ["lift the cube", "lift the red cube", "lift the cube"]


def test_memory_is_that_of_an_episode(tmp_path, quiet):
    n_episodes, frames = 20, np.zeros((20, 128, 128, 3), np.uint8)  # 1 MB
    with h5py.File(tmp_path / "large.hdf5", "w") as file:
        file.create_group("data").attrs["env_args"] = json.dumps(ENV_ARGS)
        for index in range(n_episodes):
            demo = file.create_group(f"data/demo_{index}")
            demo["actions"], demo["obs/state"] = np.zeros((20, 7)), np.zeros((20, 3))
            demo["obs/agentview_image"] = frames + np.uint8(index)
    tracemalloc.start()
    try:
        store = import_robomimic(tmp_path / "large.hdf5", tmp_path / "large.zarr", console=quiet)
        export_robomimic(store, tmp_path / "again.hdf5", console=quiet)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert store.num_episodes == n_episodes
    assert peak < n_episodes * frames.nbytes / 2


def without(*names: str) -> Callable[[Path], None]:
    return lambda path: write_robomimic(path, leave_out=names)


def cut_off(path: Path) -> None:
    write_robomimic(path)
    path.write_bytes(path.read_bytes()[:-20000])


def broken_chunk(path: Path) -> None:
    write_robomimic(path)
    with h5py.File(path, "r") as file:
        chunk = file["data/demo_10/obs/agentview_image"].id.get_chunk_info(0)
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset + chunk.size // 2)
        file.write(bytes(chunk.size // 2))


def shorter_array(path: Path) -> None:
    write_robomimic(path)
    with h5py.File(path, "r+") as file:
        del file["data/demo_10/obs/robot0_eef_pos"]
        file["data/demo_10/obs/robot0_eef_pos"] = np.zeros((3, 3))


def missing_array(path: Path) -> None:
    write_robomimic(path)
    with h5py.File(path, "r+") as file:
        del file["data/demo_10/obs/agentview_image"]


def something_else(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["weights"] = np.zeros(3)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (without("obs/agentview_image", "obs/robot0_eye_in_hand_image"), "has no images"),
        (without("actions"), "no robomimic dataset"),
        (something_else, "no robomimic dataset"),
        (lambda path: path.write_text("a web page"), "damaged or incomplete"),
        (cut_off, "damaged or incomplete"),
        (broken_chunk, "demo_10/obs/agentview_image cannot be read"),
        (missing_array, "demo_10/obs/agentview_image is missing"),
        (shorter_array, "demo_10/obs/robot0_eef_pos has the shape"),
        (lambda path: write_robomimic(path, env_args=None), "add fps="),
        (lambda path: write_robomimic(path, env_args={"env_kwargs": {"control_freq": 59.94}}), "whole number"),
    ],
)
def test_bad_files_are_refused_and_leave_nothing(tmp_path, quiet, make, says):
    make(tmp_path / "lift.hdf5")
    with pytest.raises(UserError, match=says) as caught:
        convert(tmp_path / "lift.hdf5", tmp_path / "lift.zarr", console=quiet)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["lift.hdf5"]


def test_another_rate_is_refused(tmp_path, quiet):
    write_robomimic(tmp_path / "lift.hdf5")
    with pytest.raises(UserError, match="recorded at 20 Hz, not 30 Hz"):
        convert(tmp_path / "lift.hdf5", tmp_path / "lift.zarr", fps=30, console=quiet)


def test_a_damaged_store_leaves_no_file(make_store, tmp_path, quiet):
    store = make_store(6)
    (store.path / "data/action/c/0/0").write_bytes(b"cut off")
    with pytest.raises(UserError, match="damaged"):
        export_robomimic(store, tmp_path / "demos.hdf5", console=quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["demos.zarr"]


def test_nothing_is_overwritten(make_store, tmp_path, quiet):
    store = make_store(2)
    (tmp_path / "there.hdf5").write_text("kept")
    with pytest.raises(UserError, match="exists"):
        convert(store.path, tmp_path / "there.hdf5", console=quiet)
    assert (tmp_path / "there.hdf5").read_text() == "kept"
    with pytest.raises(UserError, match="no finished episode"):
        export_robomimic(DemoStore.create(tmp_path / "empty.zarr", store.features, {"fps": 20}), tmp_path / "e.hdf5")
