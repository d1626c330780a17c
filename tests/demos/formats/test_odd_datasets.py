"""LeRobotDatasets that are not quite what their metadata say: read right, with a word on what is given up."""

import numpy as np
import pyarrow
import pytest
from plain_lerobot import FRONT, LENGTHS, STATE, PlainDataset, assert_whole, encoded, frame, imported

from pixio_robot.pretraining.sources.lerobot_frames import LeRobotStream


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
