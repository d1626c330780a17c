"""LeRobotDatasets whose rows and metadata contradict each other: refused with the place, and what is no contradiction read."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from plain_lerobot import (
    FPS,
    FRONT,
    LENGTHS,
    STATE,
    PlainDataset,
    assert_whole,
    encoded,
    frame,
    greys,
    imported,
    with_video,
)

from pixio_robot.common.errors import UserError
from pixio_robot.demos.formats.lerobot import import_lerobot
from pixio_robot.demos.formats.lerobot_layout import open_layout
from pixio_robot.pretraining.sources.lerobot_frames import LeRobotStream


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


@pytest.mark.parametrize(("alter", "says"), [case for case in REFUSED if "timestamp of episode" in case[1]])
def test_clocks_are_judged_alike_with_video(tmp_path, alter, says):
    dataset = PlainDataset()
    alter(dataset)
    root = with_video(dataset, tmp_path / "dataset", greys(12))
    for read in (lambda: import_lerobot(root, tmp_path / "store.zarr"), lambda: LeRobotStream(str(root))):
        with pytest.raises(UserError, match=says):
            read()
