"""LeRobotDatasets that are not quite what their metadata say: read right, with a word on what is given up, or refused."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from plain_lerobot import FPS, FRONT, LENGTHS, STATE, PlainDataset, encoded, frame
from rich.console import Console
from tagged_video import BT601, BT709, FULL, LIMITED, write_video

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore
from pixio_robot.demos.formats.lerobot import import_lerobot
from pixio_robot.demos.formats.lerobot_layout import open_layout
from pixio_robot.pretraining.sources.lerobot_frames import LeRobotStream
from pixio_robot.pretraining.sources.stream import Lane


def imported(dataset: PlainDataset, folder: Path) -> tuple[DemoStore, str]:
    said = io.StringIO()
    root = dataset.write(folder / "dataset")
    store = import_lerobot(root, folder / "store.zarr", console=Console(file=said, width=10_000))
    return store, said.getvalue()


def assert_whole(store: DemoStore) -> None:
    """Check that every number and pixel is where it belongs."""
    count = sum(LENGTHS)
    assert store.episode_ends.tolist() == np.cumsum(LENGTHS).tolist()
    assert store.read(STATE, 0, count).tolist() == [[number, number / 2] for number in range(count)]
    assert store.read("action", 0, count).tolist() == [[number + 0.5, -number, 1] for number in range(count)]
    np.testing.assert_array_equal(store.read(FRONT, 0, count), [frame(number) for number in range(count)])
    assert store.episode_tasks == ["reach", "lift", "reach"]


def test_rows_are_found_by_their_indices(tmp_path):
    dataset = PlainDataset()
    dataset.reorder(np.random.default_rng(0).permutation(sum(LENGTHS)).tolist())
    dataset.episodes.reverse()
    store, said = imported(dataset, tmp_path)
    assert store.episode_ends.tolist() == [5, 8, 12]
    assert store.read(STATE, 0, 5)[:, 0].tolist() == [7, 8, 9, 10, 11]
    np.testing.assert_array_equal(store.read(FRONT, 5, 8), [frame(number) for number in (4, 5, 6)])
    assert store.attributes["given_up"] == ["the numbers of episodes, which go from 0 to 2 with gaps"]
    assert said.count("left out or changed") == 1


def test_a_whole_dataset_gives_nothing_up(tmp_path):
    store, said = imported(PlainDataset(), tmp_path)
    assert_whole(store)
    assert "given_up" not in store.attributes and "left out" not in said
    assert store.names == {STATE: ["x", "y"]}


def drop_episode(dataset: PlainDataset) -> None:
    dataset.reorder([0, 1, 2, 3, 7, 8, 9, 10, 11])
    del dataset.episodes[1]
    dataset.info |= {"total_episodes": 2, "total_frames": 9}


def tasks_in_a_column(dataset: PlainDataset) -> None:
    dataset.tasks = {"task_index": [0, 1], "task": ["reach", "lift"]}


def instruction(dataset: PlainDataset) -> None:
    dataset.features["observation.language"] = {"dtype": "string", "shape": [1], "names": None}
    dataset.columns["observation.language"] = ["pick the cup"] * sum(LENGTHS)


def others(dataset: PlainDataset) -> None:
    dataset.features["next.reward"] = {"dtype": "float32", "shape": [1], "names": None}
    dataset.columns["next.reward"] = [0.5] * sum(LENGTHS)


def double(dataset: PlainDataset) -> None:
    dataset.features["action"]["dtype"] = "float64"


def marked_depth(dataset: PlainDataset) -> None:
    depth = [{"bytes": encoded(np.full((8, 12), 500 + n, np.uint16)), "path": None} for n in range(sum(LENGTHS))]
    dataset.features["observation.images.rear"] = {
        "dtype": "image",
        "shape": [8, 12, 1],
        "info": {"is_depth_map": True},
    }
    dataset.features["observation.images.front_depth"] = {"dtype": "image", "shape": [8, 12, 1]}
    dataset.columns |= {"observation.images.rear": depth, "observation.images.front_depth": depth}


def splits(dataset: PlainDataset) -> None:
    dataset.info["splits"] = {"train": "0:2", "val": "2:3"}


def categories(dataset: PlainDataset) -> None:
    """Words as pandas keeps categories, and images as bytes alone."""
    words = pyarrow.array(["reach", "lift"]).dictionary_encode()
    dataset.tasks = {"task_index": [0, 1], "task": words}  # pyright: ignore[reportAttributeAccessIssue]
    dataset.columns[FRONT] = [image["bytes"] for image in dataset.columns[FRONT]]


def undescribed(dataset: PlainDataset) -> None:
    dataset.columns["observation.force"] = [[1.0]] * sum(LENGTHS)
    dataset.features[STATE]["names"] = ["x"]


def listed_elsewhere(dataset: PlainDataset) -> None:
    """Rows of an episode that the metadata do not list."""
    del dataset.episodes[2]
    dataset.info |= {"total_episodes": 2, "total_frames": 7}


@pytest.mark.parametrize(
    ("alter", "given_up", "lengths"),
    [
        (drop_episode, ["the numbers of episodes, which go from 0 to 2 with gaps"], [4, 5]),
        (tasks_in_a_column, None, LENGTHS),
        (instruction, ["observation.language, of dtype string"], LENGTHS),
        (others, ["next.reward"], LENGTHS),
        (double, ["the dtype float64 of action: float32 instead"], LENGTHS),
        (
            marked_depth,
            ["observation.images.rear, which is depth", "observation.images.front_depth, which is depth"],
            LENGTHS,
        ),
        (splits, ["the splits train (0:2), val (2:3): all episodes are there"], LENGTHS),
        (categories, None, LENGTHS),
        (
            undescribed,
            [
                "the columns observation.force, which meta/info.json does not describe",
                "the names of observation.state, which are not one for each of its 2 numbers",
            ],
            LENGTHS,
        ),
        (listed_elsewhere, ["episode 2, which meta/episodes does not list"], [4, 3]),
    ],
)
def test_what_is_given_up_is_said(tmp_path, caplog, alter, given_up, lengths):
    dataset = PlainDataset()
    alter(dataset)
    store, said = imported(dataset, tmp_path)
    assert np.diff(store.episode_ends, prepend=0).tolist() == list(lengths)
    assert store.features.keys() == {FRONT, STATE, "action"}
    assert store.attributes.get("given_up") == given_up
    assert ("left out or changed: " + "; ".join(given_up) in said) if given_up else ("left out" not in said)
    assert set(store.episode_tasks) <= {"reach", "lift"}
    # The other reader of the same dataset takes the same cameras.
    stream = LeRobotStream(str(tmp_path / "dataset"), every=1)
    assert stream.images == sum(lengths)
    assert ("which is depth" in caplog.text) == (alter is marked_depth)


def test_an_episode_is_cut_where_its_task_changes(tmp_path):
    dataset = PlainDataset()
    dataset.columns["task_index"] = [0, 0, 1, 1, 1, 1, 1, 0, 0, 1, 0, 0]
    dataset.features["next.success"] = {"dtype": "bool", "shape": [1], "names": None}
    dataset.columns["next.success"] = [False] * 11 + [True]
    store, said = imported(dataset, tmp_path)
    assert store.episode_ends.tolist() == [2, 4, 7, 9, 10, 12]
    assert store.episode_tasks == ["reach", "lift", "lift", "reach", "lift", "reach"]
    assert store.episode_success.tolist() == [-1, 0, 0, -1, -1, 1]
    assert store.read(STATE, 0, 12)[:, 0].tolist() == list(range(12))
    assert "cut at each change (into how many): 0 (2), 2 (3)" in said


@pytest.mark.parametrize(
    ("pixels", "shape", "expected"),
    [
        (np.arange(96, dtype=np.uint8).reshape(8, 12), [8, 12, 1], np.arange(96)),
        (np.arange(96, dtype=np.uint16).reshape(8, 12) * 257, [8, 12, 1], np.arange(96)),
        (np.dstack([np.arange(96, dtype=np.uint8).reshape(8, 12)] * 4), [8, 12, 4], np.arange(96)),
        (np.dstack([np.arange(96, dtype=np.uint8).reshape(8, 12)] * 3), [3, 8, 12], np.arange(96)),
        (np.dstack([np.arange(96, dtype=np.uint8).reshape(8, 12)] * 3), [12, 8, 3], np.arange(96)),
    ],
)
def test_cameras_of_other_channels_and_depths(tmp_path, pixels, shape, expected):
    dataset = PlainDataset()
    dataset.columns[FRONT] = [{"bytes": encoded(pixels), "path": None}] * sum(LENGTHS)
    dataset.features[FRONT] |= {"shape": shape, "names": None}
    store, _ = imported(dataset, tmp_path)
    assert store.features[FRONT].shape == (8, 12, 3)
    seen = store.read(FRONT, 0, 1)[0]
    assert seen.tolist() == np.repeat(expected.reshape(8, 12, 1), 3, axis=2).tolist()
    np.testing.assert_array_equal(LeRobotStream(str(tmp_path / "dataset")).preview(1)[0], seen)
    given_up = " ".join(store.attributes.get("given_up", []))
    assert ("8 bits" in given_up) == (pixels.dtype == np.uint16)
    assert ("fourth channel" in given_up) == (shape[-1] == 4)


def setting(part: str, key: str, place: Any, value: Any) -> Callable[[PlainDataset], None]:
    def alter(dataset: PlainDataset) -> None:
        getattr(dataset, part)[key][place] = value

    return alter


def without(part: str, key: str) -> Callable[[PlainDataset], None]:
    return lambda dataset: getattr(dataset, part).pop(key)


def info(**values: Any) -> Callable[[PlainDataset], None]:
    return lambda dataset: dataset.info.update(values)


def without_row(dataset: PlainDataset) -> None:
    dataset.reorder([0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11])


def twice_a_row(dataset: PlainDataset) -> None:
    dataset.reorder([0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10, 11])


def shorter(dataset: PlainDataset) -> None:
    dataset.episodes[1]["length"] = 2
    dataset.info["total_frames"] = 11


def times(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[PlainDataset], None]:
    """Alter the time stamps of the last episode."""

    def alter(dataset: PlainDataset) -> None:
        dataset.columns["timestamp"][7:] = change(np.arange(5) / FPS).tolist()

    return alter


def success(value: Any) -> Callable[[PlainDataset], None]:
    """A column of successes, one of which is no truth value."""

    def alter(dataset: PlainDataset) -> None:
        dataset.features["next.success"] = {"dtype": "string", "shape": [1], "names": None}
        dataset.columns["next.success"] = [value] * sum(LENGTHS)

    return alter


def camera_called(name: str) -> Callable[[PlainDataset], None]:
    def alter(dataset: PlainDataset) -> None:
        dataset.features[name], dataset.columns[name] = dataset.features.pop(FRONT), dataset.columns.pop(FRONT)

    return alter


REFUSED = [
    (success("False"), r"next\.success of episode 0, step 0, is 'False', where true or false should be"),
    (success(0.5), r"next\.success of episode 0, step 0, is 0\.5, where true or false should be"),
    (
        camera_called("observation.images.front left"),
        "cannot have a feature 'observation.images.front left': give it a name",
    ),
    (camera_called("observation.images.../../x"), r"cannot have a feature 'observation\.images\.\.\./\.\./x'"),
    (setting("columns", "task_index", 5, float("nan")), "task_index is nan in row 5, which is no whole number"),
    (setting("columns", "task_index", 5, 0.4), r"task_index is 0\.4 in row 5, which is no whole number"),
    (setting("columns", "episode_index", 11, float("inf")), "episode_index is inf in row 11, which is no whole number"),
    (
        setting("tasks", "task_index", 1, 0),
        "two tasks of index 0, where every task should have a whole number of its own",
    ),
    (setting("columns", FRONT, 5, {"bytes": None, "path": None}), r"step 1, has no image"),
    (info(total_episodes=5), r"meta/info\.json says total_episodes 5, but meta/episodes lists 3"),
    (info(total_frames=13), r"meta/info\.json says total_frames 13, but meta/episodes lists 12"),
    (info(fps=0), "gives its fps as 0"),
    (info(fps="ten"), "gives its fps as 'ten'"),
    (shorter, r"file-000\.parquet, episode 1 has 3 steps, but meta/episodes says 2"),
    (without_row, r"file-000\.parquet, step 1 of episode 1 is missing"),
    (twice_a_row, r"file-000\.parquet, step 1 of episode 1 comes twice"),
    (
        setting("columns", "task_index", 5, 7),
        r"step 1 of episode 1 has the task_index 7, which meta/tasks\.parquet lacks",
    ),
    (setting("columns", STATE, 5, None), r"file-000\.parquet: observation\.state of episode 1, step 1, is empty"),
    (setting("columns", STATE, 5, [1.0, None]), r"state of episode 1, step 1, has an empty number"),
    (setting("columns", "action", 5, [1.0]), r"action of episode 1, step 1, has 1 numbers, where 3 numbers should be"),
    (setting("columns", STATE, 5, [0.0, float("nan")]), r"state of episode 1, step 1, dimension 1 \(y\) is nan"),
    (setting("columns", "action", 6, [1e40, 0.0, 0.0]), r"action of episode 1, step 2, dimension 0 is inf"),
    (setting("columns", FRONT, 5, None), r"images\.front of episode 1, step 1, has no image"),
    (setting("columns", FRONT, 5, {"bytes": None, "path": "a.png"}), r"step 1, has no image, only the path a\.png"),
    (
        setting("columns", FRONT, 5, {"bytes": encoded(frame(5)[:4]), "path": None}),
        r"step 1, is 4 x 12 px high and wide",
    ),
    (setting("columns", FRONT, 5, {"bytes": b"GIF89a", "path": None}), r"episode 1, step 1, cannot be read"),
    (setting("columns", "timestamp", 5, None), r"timestamp is empty in row 5"),
    (without("columns", STATE), r"has no column observation\.state"),
    (without("columns", "frame_index"), "the column frame_index is missing"),
    (without("tasks", "__index_level_0__"), r"meta/tasks\.parquet .* has the columns task_index"),
    (setting("features", STATE, "shape", [2.5]), r"describes observation\.state as"),
    (setting("features", STATE, "shape", [3]), r"state of episode 0, step 0, has 2 numbers, where 3 numbers should be"),
    (times(lambda t: t + 7), r"timestamp of episode 2 begins at 7 s instead of 0 s"),
    (
        times(lambda t: t + (t > 0.25) / FPS),
        r"timestamp of episode 2 advances by 0\.2 s after step 2 instead of 0\.1 s",
    ),
    (times(lambda t: t * 2), r"timestamp of episode 2 advances by 0\.2 s a step, but 10 fps means 0\.1 s"),
    (times(lambda t: t * np.nan), "timestamp of episode 2 is not a number at step 0"),
]


@pytest.mark.parametrize(("alter", "says"), REFUSED)
def test_contradictions_are_refused_with_their_place(tmp_path, alter, says):
    dataset = PlainDataset()
    alter(dataset)
    with pytest.raises(UserError, match=says) as caught:
        imported(dataset, tmp_path)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


def test_images_that_are_only_named_are_called_that(tmp_path):
    dataset = PlainDataset()
    dataset.columns[FRONT] = ["images/a.png"] * sum(LENGTHS)
    with pytest.raises(UserError, match=r"episode 0, step 0, has no image, only the path images/a\.png"):
        imported(dataset, tmp_path)


def test_notes_of_a_system_about_its_files_are_no_tables(tmp_path):
    root = PlainDataset().write(tmp_path / "dataset")
    for folder in ("data/chunk-000", "meta/episodes/chunk-000"):
        (root / folder / "._file-000.parquet").write_bytes(b"\0\5\26\7")
    assert len(open_layout(root).episodes) == len(LENGTHS)


def test_what_is_not_said_to_succeed_is_not_known(tmp_path):
    dataset = PlainDataset()
    success(None)(dataset)
    dataset.columns["next.success"][4:7] = [False, None, True]
    assert imported(dataset, tmp_path)[0].episode_success.tolist() == [-1, 1, -1]


def test_clocks_that_jitter_are_fine(tmp_path):
    dataset = PlainDataset()
    times(lambda t: t + np.array([0.02, -0.02, 0.01, 0.04, -0.01]))(dataset)
    assert_whole(imported(dataset, tmp_path)[0])


def test_a_layout_says_where_episodes_are(tmp_path):
    layout = open_layout(PlainDataset().write(tmp_path / "dataset"))
    assert [episode.rows_T.tolist() for episode in layout.episodes] == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9, 10, 11]]
    assert layout.fps == FPS and layout.cameras == [FRONT] and layout.values == [STATE, "action"]


def with_video(dataset: PlainDataset, root: Path, frames: list[np.ndarray], *tags: int) -> Path:
    """Keep the camera in one video."""
    dataset.features[FRONT] = {"dtype": "video", "shape": list(frames[0].shape), "names": None}
    dataset.info["video_path"] = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    del dataset.columns[FRONT]
    start = 0
    for episode in dataset.episodes:
        place = {"chunk_index": 0, "file_index": 0, "from_timestamp": start / FPS}
        episode |= {f"videos/{FRONT}/{name}": value for name, value in place.items()}
        start += episode["length"]
    dataset.write(root)
    file = root / f"videos/{FRONT}/chunk-000/file-000.mp4"
    file.parent.mkdir(parents=True)
    write_video(file, "libx264", "yuv420p", *(tags or (None, None)), frames)
    return root


def greys(count: int) -> list[np.ndarray]:
    return [np.full((64, 64, 3), 20 * number, np.uint8) for number in range(count)]


@pytest.mark.parametrize("tags", [(), (BT709, LIMITED), (BT709, FULL), (BT601, FULL)])
def test_video_has_the_colours_that_were_recorded(tmp_path, tags):
    colour = np.array([200, 50, 100])
    frames = [np.full((64, 64, 3), colour, np.uint8)] * 6 + greys(6)
    root = with_video(PlainDataset(), tmp_path / "dataset", frames, *tags)
    store = import_lerobot(root, tmp_path / "store.zarr", console=Console(file=io.StringIO()))
    seen = store.read(FRONT, 0, 12).astype(int)
    assert np.abs(seen[0] - colour).max() <= 4
    assert np.abs(seen[6:] - np.stack(greys(6))).max() <= 4  # each frame in its place
    stream = LeRobotStream(str(root), every=1)
    np.testing.assert_array_equal(contents_of(stream)[f"{FRONT} episode 0 frame 0"], store.read(FRONT, 0, 1)[0])


@pytest.mark.parametrize("template", ["../other/{video_key}.mp4", "{outside}/other/{video_key}.mp4"])
def test_a_video_outside_of_a_dataset_is_not_read(tmp_path, template):
    root = with_video(PlainDataset(), tmp_path / "dataset", greys(12))
    (tmp_path / "other").mkdir()
    (root / f"videos/{FRONT}/chunk-000/file-000.mp4").rename(tmp_path / "other" / f"{FRONT}.mp4")
    info = json.loads((root / "meta/info.json").read_text())
    info["video_path"] = template.replace("{outside}", str(tmp_path))
    (root / "meta/info.json").write_text(json.dumps(info))
    for read in (lambda: import_lerobot(root, tmp_path / "store.zarr"), lambda: LeRobotStream(str(root))):
        with pytest.raises(UserError, match="other/.*mp4 is outside of it, where nothing is read"):
            read()
    assert not (tmp_path / "store.zarr").exists()


def contents_of(stream: LeRobotStream) -> dict[str, Any]:
    read = stream.read(stream.lane_units(0, Lane(0, 0, 1)), np.random.default_rng(0))
    return {item.name: item.content for item in read.items}


def test_a_video_shorter_than_its_table_is_named(tmp_path):
    root = with_video(PlainDataset(), tmp_path / "dataset", greys(10))
    with pytest.raises(
        UserError, match=r"file-000\.mp4: observation\.images\.front of episode 2, step 3, cannot be read"
    ):
        import_lerobot(root, tmp_path / "store.zarr", console=Console(file=io.StringIO()))
    stream = LeRobotStream(str(root), every=1)
    damaged = {name for name, content in contents_of(stream).items() if isinstance(content, Exception)}
    assert damaged == {f"{FRONT} episode 2 frame {step}" for step in (3, 4)}


@pytest.mark.parametrize(("alter", "says"), [case for case in REFUSED if "timestamp of episode" in case[1]])
def test_clocks_are_judged_alike_with_video(tmp_path, alter, says):
    dataset = PlainDataset()
    alter(dataset)
    root = with_video(dataset, tmp_path / "dataset", greys(12))
    for read in (lambda: import_lerobot(root, tmp_path / "store.zarr"), lambda: LeRobotStream(str(root))):
        with pytest.raises(UserError, match=says):
            read()
