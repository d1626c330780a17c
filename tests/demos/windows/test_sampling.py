from collections import Counter

import numpy as np
import pytest
import torch
from numbered_episodes import FEATURES, random_episode

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore, Sampling, WindowDataset, WindowSampler, window_weights
from pixio_robot.training import DemosConfig
from pixio_robot.training.data.batches import TrainingBatches, Windows

LENGTHS = [4, 16, 8, 12]
TASKS = ["lift", "lift", "push", "lift"]


@pytest.fixture
def store(tmp_path) -> DemoStore:
    store = DemoStore.create(tmp_path / "demos.zarr", FEATURES, {"fps": 20})
    for number, (length, task) in enumerate(zip(LENGTHS, TASKS)):
        store.append_episode(random_episode(number, n_steps=length), seed=number, success=True, task=task)
    store.close()
    return store


def episodes_seen(store: DemoStore, sampling: Sampling, n_epochs: int = 200) -> np.ndarray:
    """How many windows of each episode an epoch has on average."""
    starts = np.arange(store.num_steps)
    sampler = WindowSampler(starts, 3, window_weights(store, starts, sampling))
    orders = np.stack([sampler.order(epoch) for epoch in range(n_epochs)])
    return np.bincount(np.searchsorted(store.episode_ends, orders.ravel(), side="right"), minlength=4) / n_epochs


@pytest.mark.parametrize(
    ("sampling", "shares"),
    [
        (Sampling(), [4, 16, 8, 12]),
        (Sampling("episode"), [10, 10, 10, 10]),
        (Sampling("task"), [20 * 4 / 32, 20 * 16 / 32, 20, 20 * 12 / 32]),
        (Sampling("task", {"push": 3}), [10 * 4 / 32, 10 * 16 / 32, 30, 10 * 12 / 32]),
        (Sampling("step", {"push": 0}), [5, 20, 0, 15]),
        (Sampling("episode", {"push": 2}, {0: 0, 1: 5}), [0, 25, 10, 5]),
    ],
)
def test_shares(store, sampling, shares):
    assert episodes_seen(store, sampling) == pytest.approx(shares, abs=0.15)


def test_within_an_episode_all_windows_are_alike(store):
    starts = np.arange(store.num_steps)
    sampler = WindowSampler(starts, 0, window_weights(store, starts, Sampling("episode")))
    counts = Counter(np.concatenate([sampler.order(epoch) for epoch in range(400)]).tolist())
    for start, stop in ((0, 4), (4, 20), (20, 28), (28, 40)):
        expected = 400 * 10 / (stop - start)
        assert [counts[step] for step in range(start, stop)] == pytest.approx([expected] * (stop - start), rel=0.1)


def test_an_epoch_follows_from_seed_and_number_alone(store):
    starts = np.arange(store.num_steps)
    weights = window_weights(store, starts, Sampling("task"))
    one, other = WindowSampler(starts, 1, weights), WindowSampler(starts, 2, weights)
    fifth = one.order(5).tolist()
    assert WindowSampler(starts, 1, weights).order(5).tolist() == fifth
    assert fifth not in (one.order(4).tolist(), other.order(5).tolist())
    # The order of windows that are all alike, which runs before weights existed had.
    unweighted = WindowSampler(starts, 1, window_weights(store, starts, Sampling()))
    assert unweighted.order(5).tolist() == np.random.default_rng([1, 5]).permutation(starts).tolist()


def test_data_loader_takes_the_sampler(store):
    starts = np.arange(store.num_steps)
    sampler = WindowSampler(starts, 0, window_weights(store, starts, Sampling(task_weights={"lift": 0})))
    loader = torch.utils.data.DataLoader(WindowDataset(store, 2), batch_size=8, sampler=sampler)
    epochs = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        epochs.append(torch.cat([batch["index"] for batch in loader]).tolist())
    assert [sorted(set(epoch)) for epoch in epochs] == [list(range(20, 28))] * 2
    assert epochs == [sampler.order(epoch).tolist() for epoch in range(2)]


def test_training_batches_by_weight_are_the_same_when_resumed(store):
    sampling = DemosConfig(
        "store", "a.zarr", sample_by="task", task_weights={"push": 0}, episode_weights={"0": 0}
    ).sampling

    def batches(seed: int) -> TrainingBatches:
        return TrainingBatches(store, ["observation.images.front"], Windows(2), 8, seed, cache=None, sampling=sampling)

    whole = batches(0)
    steps = [whole.batch(step)["index"].tolist() for step in range(12)]
    assert {episode for step in steps for episode in np.searchsorted(store.episode_ends, step, side="right")} == {1, 3}
    resumed = batches(0)
    assert resumed.batch(7)["index"].tolist() == steps[7] != batches(1).batch(7)["index"].tolist()


@pytest.mark.parametrize(
    ("sampling", "says"),
    [
        (Sampling("steps"), "Did you mean 'step'"),
        (Sampling(task_weights={"lifts": 2}), "no task 'lifts'.*Did you mean 'lift'"),
        (Sampling(episode_weights={4: 2}), "no episode 4.*0 to 3"),
        (Sampling(task_weights={"lift": -1}), "is -1"),
        (Sampling(episode_weights={0: float("nan")}), "is nan"),
        (Sampling(task_weights={"lift": 0, "push": 0}), "leave no window"),
    ],
)
def test_what_does_not_fit_is_refused(store, sampling, says):
    with pytest.raises(UserError, match=says):
        window_weights(store, np.arange(store.num_steps), sampling)
