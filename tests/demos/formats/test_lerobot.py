import json
import logging
import shutil
import socket
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from lerobot.datasets import LeRobotDataset
from numbered_episodes import assert_holds_numbered, random_episode
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore, Feature
from pixio_robot.demos.formats.conversion import convert
from pixio_robot.demos.formats.lerobot import _quiet_libraries, export_lerobot, import_lerobot
from pixio_robot.demos.store.layout import INTERVENTION
from pixio_robot.demos.windows.sampling import imitated_ranges

FEATURES = {
    "observation.images.front": Feature((64, 80, 3), "uint8"),
    "observation.images.wrist": Feature((64, 64, 3), "uint8"),
    "observation.state": Feature((5,), "float32"),
    "action": Feature((1,), "float32"),
}
LENGTHS = [5, 1, 9]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to reach the hub fails the test; LeRobot asks it as soon as something is missing."""

    def refuse(*arguments: object) -> None:
        raise AssertionError(f"a connection was wanted: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def quiet() -> Console:
    return Console(file=StringIO())


def smooth_frames(seed: int, n_frames: int, height: int, width: int) -> np.ndarray:
    """Frames as a video codec likes them: a gradient that moves."""
    rows, columns = np.mgrid[0:height, 0:width]
    phases = seed + 0.3 * np.arange(n_frames)[:, None, None, None] + np.arange(3)
    waves = np.sin(phases + (rows / 20 + columns / 30)[None, :, :, None])
    return (127 + 100 * waves).astype(np.uint8)


def smooth_episode(number: int) -> dict[str, np.ndarray]:
    episode = random_episode(number, FEATURES, n_steps=LENGTHS[number])
    for key in ("observation.images.front", "observation.images.wrist"):
        episode[key] = smooth_frames(number, LENGTHS[number], *FEATURES[key].shape[:2])
    return episode


@pytest.fixture
def store(tmp_path: Path) -> DemoStore:
    attributes = {"fps": 20, "env": {"type": "toy", "robot": "Panda"}}
    store = DemoStore.create(tmp_path / "demos.zarr", FEATURES, attributes)
    for number in range(len(LENGTHS)):
        task = ["lift", "push"][number % 2]
        store.append_episode(smooth_episode(number), seed=10 + number, success=number != 1, task=task)
    store.close()
    return store


def test_images_come_back_bit_for_bit(make_store, tmp_path, quiet):
    store = make_store(6)
    export_lerobot(store, tmp_path / "dataset", "local/toy", use_videos=False, console=quiet)
    imported = import_lerobot(tmp_path / "dataset", tmp_path / "back.zarr", console=quiet)
    assert_holds_numbered(imported, 6)
    assert imported.fps == 20
    assert imported.attributes["env"] == {"type": "toy"}
    assert imported.fingerprint() == store.fingerprint()


def test_video_keeps_everything_but_pixels(store, tmp_path, quiet):
    export_lerobot(store, tmp_path / "dataset", "local/toy", console=quiet)
    imported = import_lerobot(tmp_path / "dataset", tmp_path / "back.zarr", console=quiet)
    assert imported.features == store.features
    assert imported.fps == 20
    assert imported.attributes["env"] == {"type": "toy", "robot": "Panda"}
    np.testing.assert_array_equal(imported.episode_ends, np.cumsum(LENGTHS))
    assert imported.episode_tasks == ["lift", "push", "lift"]
    assert imported.episode_success.tolist() == [1, 0, 1]
    assert imported.episode_seeds.tolist() == [10, 11, 12]
    for number in range(len(LENGTHS)):
        found, expected = imported.episode(number), smooth_episode(number)
        for key in ("observation.state", "action"):
            np.testing.assert_array_equal(found[key], expected[key])
        for key in ("observation.images.front", "observation.images.wrist"):
            # Neighbouring frames differ by 17 grey levels on average: none is mistaken for another.
            error = np.abs(found[key].astype(float) - expected[key]).mean(axis=(1, 2, 3))
            assert error.max() < 4


@pytest.mark.parametrize("use_videos", [False, True])
def test_lerobot_reads_the_export(store, tmp_path, quiet, use_videos):
    export_lerobot(store, tmp_path / "dataset", "local/toy", use_videos=use_videos, console=quiet)
    dataset = LeRobotDataset("local/toy", tmp_path / "dataset", video_backend="pyav")
    assert dataset.num_episodes == 3
    assert dataset.num_frames == sum(LENGTHS)
    assert dataset.meta.robot_type == "Panda"
    expected = smooth_episode(2)
    for step, index in enumerate(range(6, 15)):
        item = dataset[index]
        np.testing.assert_array_equal(item["observation.state"].numpy(), expected["observation.state"][step])
        frame = torch.from_numpy(expected["observation.images.front"][step]).permute(2, 0, 1) / 255
        assert (item["observation.images.front"] - frame).abs().mean() < 4 / 255
        assert item["task"] == "lift"
        assert item["timestamp"].item() == pytest.approx(step / 20)
        assert bool(item["next.success"]) == (index == 14)
    # Another implementation of the same statistics; it samples frames otherwise.
    ours, theirs = store.statistics(), dataset.meta.stats
    for key in FEATURES:
        assert ours[key].keys() <= theirs[key].keys()
        for name in ("mean", "std", "min", "max"):
            assert ours[key][name].shape == theirs[key][name].shape
            np.testing.assert_allclose(ours[key][name], theirs[key][name], rtol=1e-4, atol=1e-4)


def foreign_dataset(root: Path, use_videos: bool) -> None:
    """A dataset as others make them: several files, other features, no word of success."""
    frame = {
        "dtype": "video" if use_videos else "image",
        "shape": (96, 64, 3),
        "names": ["height", "width", "channels"],
    }
    dataset = LeRobotDataset.create(
        "somebody/thing",
        fps=10,
        features={
            "observation.image": frame,
            "observation.state": {"dtype": "float64", "shape": (2,), "names": ["x", "y"]},
            "observation.matrix": {"dtype": "float32", "shape": (2, 3), "names": None},
            "action": {"dtype": "int64", "shape": (1,), "names": None},
            "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
        },
        root=root,
        use_videos=use_videos,
        data_files_size_in_mb=1e-4,
        video_files_size_in_mb=1e-4,
    )
    for episode in range(3):
        frames = smooth_frames(episode, 4, 96, 64)
        for step in range(4):
            values = {
                "observation.image": frames[step],
                "observation.state": np.array([episode, step + 0.25]),
                "observation.matrix": np.arange(6, dtype=np.float32).reshape(2, 3) + step,
                "action": np.array([step]),
                "next.reward": np.array([1.0], np.float32),
            }
            dataset.add_frame(values | {"task": f"task {episode // 2}"})
        dataset.save_episode(parallel_encoding=False)
    dataset.finalize()


@pytest.mark.parametrize("use_videos", [False, True])
def test_foreign_dataset(tmp_path, quiet, use_videos):
    root = tmp_path / "thing"
    foreign_dataset(root, use_videos)
    assert len(list(root.glob("data/*/*.parquet"))) > 1
    store = import_lerobot(root, tmp_path / "thing.zarr", image_size=32, console=quiet)
    assert store.features == {
        "observation.image": Feature((32, 32, 3), "uint8"),
        "observation.state": Feature((2,), "float32"),
        "observation.matrix": Feature((2, 3), "float32"),
        "action": Feature((1,), "float32"),
    }
    assert store.fps == 10
    assert store.episode_ends.tolist() == [4, 8, 12]
    assert store.episode_tasks == ["task 0", "task 0", "task 1"]
    assert store.episode_success.tolist() == store.episode_seeds.tolist() == [-1, -1, -1]
    states = store.read("observation.state", 0, 12)
    assert states.tolist() == [[episode, step + 0.25] for episode in range(3) for step in range(4)]
    assert store.read("observation.matrix", 0, 12)[7].tolist() == [[3, 4, 5], [6, 7, 8]]
    assert store.read("action", 0, 12)[:, 0].tolist() == [0, 1, 2, 3] * 3
    for episode in range(3):
        frames = smooth_frames(episode, 4, 96, 64)
        # On smooth frames a resize by 3 and by 2 is close to the mean of each 3 x 2 block.
        blocks = frames.reshape(4, 32, 3, 32, 2, 3).mean(axis=(2, 4))
        error = np.abs(store.episode(episode)["observation.image"] - blocks).mean(axis=(1, 2, 3))
        assert error.max() < 4


def set_version(root: Path) -> None:
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"codebase_version": "v2.1"}))


def remove(name: str) -> Callable[[Path], None]:
    def harm(root: Path) -> None:
        if (root / name).is_dir():
            shutil.rmtree(root / name)
        else:
            (root / name).unlink()

    return harm


def cut_off(pattern: str) -> Callable[[Path], None]:
    def harm(root: Path) -> None:
        path = next(root.glob(pattern))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return harm


def set_another_video_rate(root: Path) -> None:
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["observation.images.wrist"]["info"]["video.fps"] = 30
    (root / "meta/info.json").write_text(json.dumps(info))


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (set_version, "v2.1"),
        (set_another_video_rate, "mixed frame rates: observation.images.wrist has 30 Hz and its data 20 Hz"),
        (cut_off("data/*/*.parquet"), "file-000.parquet cannot be read"),
        (
            cut_off("videos/observation.images.front/*/*.mp4"),
            "file-000.mp4: observation.images.front of episode 0, step 2, cannot be read",
        ),
        (remove("meta/info.json"), "not a LeRobotDataset"),
        (remove("meta/tasks.parquet"), "incomplete"),
        (remove("meta/episodes"), "incomplete"),
        (remove("data/chunk-000/file-000.parquet"), "file-000.parquet is missing"),
        (remove("videos/observation.images.wrist"), "file-000.mp4 is missing"),
    ],
)
def test_incomplete_dataset_is_refused(store, tmp_path, quiet, harm, says):
    root = tmp_path / "dataset"
    export_lerobot(store, root, "local/toy", console=quiet)
    harm(root)
    with pytest.raises(UserError, match=says) as caught:
        import_lerobot(root, tmp_path / "back.zarr", console=quiet)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset", "demos.zarr"]


def test_an_unreadable_image_is_refused(store, tmp_path, quiet):
    root = tmp_path / "dataset"
    export_lerobot(store, root, "local/toy", use_videos=False, console=quiet)
    file = next(root.glob("data/*/*.parquet"))
    table = pyarrow.parquet.read_table(file)
    position = table.schema.get_field_index("observation.images.wrist")
    images = table["observation.images.wrist"].to_pylist()
    images[8]["bytes"] = images[8]["bytes"][:60]
    column = pyarrow.array(images, table.schema.field(position).type)
    pyarrow.parquet.write_table(table.set_column(position, table.schema.field(position), column), file)
    with pytest.raises(UserError, match=r"observation\.images\.wrist of episode 2, step 2, cannot be read"):
        import_lerobot(root, tmp_path / "back.zarr", console=quiet)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset", "demos.zarr"]


def test_nothing_is_overwritten(store, tmp_path, quiet):
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="exists"):
        export_lerobot(store, tmp_path / "there", "local/toy", console=quiet)
    export_lerobot(store, tmp_path / "dataset", "local/toy", use_videos=False, console=quiet)
    with pytest.raises(UserError, match="exists"):
        import_lerobot(tmp_path / "dataset", tmp_path / "there", console=quiet)
    assert not list((tmp_path / "there").iterdir())


def test_convert_sees_what_the_source_is(store, tmp_path, quiet):
    convert(store.path, tmp_path / "dataset", use_videos=False, console=quiet)
    convert(tmp_path / "dataset", tmp_path / "back.zarr", image_size=16, console=quiet)
    back = DemoStore.open(tmp_path / "back.zarr")
    assert back.features["observation.images.front"] == Feature((16, 16, 3), "uint8")
    np.testing.assert_array_equal(back.episode_ends, store.episode_ends)
    with pytest.raises(UserError, match="There is nothing at"):
        convert(tmp_path / "nothing", tmp_path / "other", console=quiet)
    empty = DemoStore.create(tmp_path / "empty.zarr", FEATURES, {"fps": 20})
    with pytest.raises(UserError, match="no finished episode"):
        convert(empty.path, tmp_path / "other", console=quiet)


def test_who_acted_comes_back(tmp_path, quiet):
    features = FEATURES | {INTERVENTION: Feature((1,), "float32")}
    store = DemoStore.create(tmp_path / "corrected.zarr", features, {"fps": 20})
    marks = np.array([1, 0, 0, 1], np.float32)[:, None]
    store.append_episode(random_episode(0, FEATURES, 4) | {INTERVENTION: marks}, seed=0, success=True, task="lift")
    store.close()
    export_lerobot(store, tmp_path / "dataset", "local/toy", use_videos=False, console=quiet)
    described = json.loads((tmp_path / "dataset/meta/info.json").read_text())["features"][INTERVENTION]
    assert described["dtype"] == "bool", "as LeRobot's own rollouts with corrections write it"
    imported = import_lerobot(tmp_path / "dataset", tmp_path / "back.zarr", console=quiet)
    assert imported.fingerprint() == store.fingerprint()
    assert imitated_ranges(imported).tolist() == [[0, 1], [3, 4]]


def test_an_image_writer_that_takes_its_time_is_no_failure_and_one_that_fails_is() -> None:
    writer = logging.getLogger("lerobot.datasets.image_writer")
    with _quiet_libraries():
        writer.warning("Waiting for image writer to terminate...")
    with pytest.raises(OSError, match="Error writing image"), _quiet_libraries():
        writer.error("Error writing image a.png: no room")
