import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from numbered_episodes import FEATURES, random_episode

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore, Feature, Sampling, WindowDataset
from pixio_robot.demos.store.layout import INTERVENTION
from pixio_robot.demos.windows.sampling import imitated_ranges
from pixio_robot.training.data.batches import Windows, window_starts

N_EPISODES = 6


def expected_item(index: int, horizon: int, n_obs: int) -> dict[str, np.ndarray]:
    """Written out step by step from the episodes themselves."""
    first = 0
    for number in range(N_EPISODES):
        episode = random_episode(number)
        length = len(episode["action"])
        if index < first + length:
            break
        first += length
    step = index - first
    observed = [max(0, step - back) for back in reversed(range(n_obs))]
    item = {key: np.stack([values[i] for i in observed]) for key, values in episode.items() if key != "action"}
    if n_obs == 1:
        item = {key: values[0] for key, values in item.items()}
    item["action"] = np.stack([episode["action"][min(step + ahead, length - 1)] for ahead in range(horizon)])
    item["action_is_pad"] = np.array([step + ahead >= length for ahead in range(horizon)])
    item["index"] = np.array(index)
    return item


def assert_same(item: dict[str, torch.Tensor], expected: dict[str, np.ndarray]) -> None:
    assert set(item) == set(expected)
    for key, values in expected.items():
        assert item[key].dtype == torch.from_numpy(values).dtype
        np.testing.assert_array_equal(item[key].numpy(), values)


@pytest.mark.parametrize("n_obs", [1, 3])
@pytest.mark.parametrize("horizon", [1, 5, 30])
def test_every_window(make_store, horizon, n_obs):
    store = make_store(N_EPISODES)
    dataset = WindowDataset(store, horizon, n_obs)
    assert len(dataset) == store.num_steps
    for index in range(len(dataset)):
        assert_same(dataset[index], expected_item(index, horizon, n_obs))


@pytest.mark.parametrize("n_obs", [1, 2])
def test_batch_in_any_order(make_store, n_obs):
    dataset = WindowDataset(make_store(N_EPISODES), 4, n_obs)
    indices = np.random.default_rng(0).integers(0, len(dataset), 50).tolist()
    for index, item in zip(indices, dataset.__getitems__(indices), strict=True):
        assert_same(item, expected_item(index, 4, n_obs))


def test_chosen_cameras(make_store):
    store = make_store(2)
    dataset = WindowDataset(store, 2, image_keys=["observation.images.wrist"])
    assert set(dataset[0]) == set(FEATURES) - {"observation.images.front"} | {"action_is_pad", "index"}
    assert not [key for key in WindowDataset(store, 2, image_keys=[])[0] if "images" in key]
    with pytest.raises(UserError, match=r"Did you mean 'observation\.images\.wrist'"):
        WindowDataset(store, 2, image_keys=["observation.images.wrists"])


def test_empty_store_is_refused(make_store):
    with pytest.raises(UserError, match="no finished episode"):
        WindowDataset(make_store(0), 2)


def test_index_out_of_range(make_store):
    dataset = WindowDataset(make_store(1), 2)
    for index in (-1, len(dataset)):
        with pytest.raises(IndexError):
            dataset[index]


def test_reads_observed_frames_only(make_store):
    store = make_store(0)
    store.append_episode(random_episode(3, n_steps=9), seed=0, success=True, task="x")
    shard = store.path / "data/observation.images.front/c/0/0/0/0"
    content = bytearray(shard.read_bytes())
    # The last frame's chunk stands just before the index.
    index_bytes = 16 * store._arrays["observation.images.front"].shards[0] + 4
    content[-index_bytes - 100] ^= 1
    shard.write_bytes(content)
    dataset = WindowDataset(DemoStore.open(store.path), action_horizon=8, n_obs_steps=2)
    dataset.__getitems__(list(range(8)))
    with pytest.raises(UserError):
        dataset[8]


@pytest.mark.parametrize(("start", "n_workers"), [("fork", 2), ("spawn", 1)])
def test_data_loader_workers(make_store, start, n_workers):
    dataset = WindowDataset(make_store(N_EPISODES), 4, 2)
    dataset[0]  # the parent's readers are in use when workers start
    loader = torch.utils.data.DataLoader(dataset, batch_size=8, num_workers=n_workers, multiprocessing_context=start)
    seen = 0
    for batch in loader:
        for row, index in enumerate(batch["index"].tolist()):
            assert_same({key: values[row] for key, values in batch.items()}, expected_item(index, 4, 2))
            seen += 1
    assert seen == len(dataset)


def test_workers_give_whole_batches(make_store):
    dataset = WindowDataset(make_store(N_EPISODES), 4, 2)
    steps = np.random.default_rng(0).permutation(len(dataset)).tolist()
    batches = torch.utils.data.BatchSampler(steps, 8, drop_last=False)
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, sampler=batches, num_workers=2)
    loaded = list(loader)
    assert all(batch["observation.images.front"].is_shared() for batch in loaded)
    assert torch.cat([batch["index"] for batch in loaded]).tolist() == steps
    for batch in loaded:
        for row, index in enumerate(batch["index"].tolist()):
            assert_same({key: values[row] for key, values in batch.items()}, expected_item(index, 4, 2))


def test_pickles_without_data(make_store):
    dataset = WindowDataset(make_store(N_EPISODES), 4, 2)
    assert len(pickle.dumps(dataset)) < 1000
    assert_same(copy.copy(dataset)[7], expected_item(7, 4, 2))  # rebuilt as in a worker process


def store_with_mistakes(path: Path, acted: list[list[int]]) -> DemoStore:
    """Make a store of episodes whose steps are marked by who acted; actions are numbered through."""
    features = {
        "observation.state": Feature((1,), "float32"),
        "action": Feature((1,), "float32"),
        INTERVENTION: Feature((1,), "float32"),
    }
    store = DemoStore.create(path / "corrected.zarr", features, {"fps": 20})
    first = 0
    for marks in acted:
        numbers = np.arange(first, first + len(marks), dtype=np.float32)[:, None]
        column = np.array(marks, np.float32)[:, None]
        episode = {"observation.state": numbers, "action": numbers, INTERVENTION: column}
        store.append_episode(episode, seed=None, success=True, task="toy")
        first += len(marks)
    store.close()
    return store


def test_mistakes_are_seen_and_not_imitated(tmp_path):
    store = store_with_mistakes(tmp_path, [[1, 1, 0, 0, 1, 1, 1], [0, 0], [1, 1], [0, 1]])
    assert imitated_ranges(store).tolist() == [[0, 2], [4, 7], [9, 11], [12, 13]]
    assert imitated_ranges(store, 2).tolist() == [[0, 2], [4, 7]]
    dataset = WindowDataset(store, 3, n_obs_steps=2)

    before = dataset[1]
    assert before["action"].ravel().tolist() == [1, 1, 1], "what follows is a mistake: the last good action is repeated"
    assert before["action_is_pad"].tolist() == [False, True, True]
    after = dataset[4]
    assert after["action"].ravel().tolist() == [4, 5, 6] and not after["action_is_pad"].any()
    assert after["observation.state"].ravel().tolist() == [3, 4], "the mistake is seen"
    assert dataset[2]["action_is_pad"].all() and dataset[8]["action_is_pad"].all()
    assert dataset[12]["action_is_pad"].tolist() == [False, True, True], "no mark beyond the last episode"

    starts = window_starts(store, None, Windows(3), Sampling(pad_short_episodes=True))
    assert starts.tolist() == [0, 1, 4, 5, 6, 9, 10, 12]
    starts = window_starts(store, None, Windows(3, drop_n_last_frames=2), Sampling(pad_short_episodes=True))
    assert starts.tolist() == [4], "the last steps before a mistake are dropped as those of an episode are"
    with pytest.raises(UserError, match="at most 3 steps in a row are to be imitated"):
        window_starts(store, None, Windows(3, drop_n_last_frames=5), Sampling(pad_short_episodes=True))


def test_without_marks_episodes_are_imitated_whole(make_store):
    store = make_store(N_EPISODES)
    ends = store.episode_ends.tolist()
    assert imitated_ranges(store).tolist() == [list(pair) for pair in zip([0, *ends[:-1]], ends, strict=True)]
