"""Stores of numbered episodes: what an episode holds follows from its number."""

import numpy as np

from pixio_robot.demos import DemoStore, Feature

Episode = dict[str, np.ndarray]

FEATURES = {
    "observation.images.front": Feature((16, 20, 3), "uint8"),
    "observation.images.wrist": Feature((8, 8, 3), "uint8"),
    "observation.state": Feature((5,), "float32"),
    "action": Feature((3,), "float32"),
}
TASKS = ["lift the cube", "open the drawer"]


def random_episode(number: int, features: dict[str, Feature] = FEATURES, n_steps: int | None = None) -> Episode:
    """An episode that follows from its number; a third of the frames are black."""
    rng = np.random.default_rng(number)
    n_steps = n_steps or int(rng.integers(1, 12))
    episode = {}
    for key, feature in features.items():
        shape = (n_steps, *feature.shape)
        if feature.is_image:
            episode[key] = rng.integers(0, 256, shape, np.uint8)
            episode[key][::3] = 0
        else:
            episode[key] = rng.normal(size=shape).astype(feature.dtype)
    return episode


def append_numbered(store: DemoStore, number: int) -> None:
    store.append_episode(
        random_episode(number, store.features),
        seed=None if number % 5 == 4 else number,
        success=[True, False, None][number % 3],
        task=TASKS[number // 2 % 2],
    )


def assert_holds_numbered(store: DemoStore, n_episodes: int) -> None:
    """Check that a store has the first numbered episodes, bit for bit, and nothing else."""
    assert store.num_episodes == n_episodes
    expected = [random_episode(number, store.features) for number in range(n_episodes)]
    lengths = [len(episode["action"]) for episode in expected]
    np.testing.assert_array_equal(store.episode_ends, np.cumsum(lengths, dtype=np.int64))
    assert store.num_steps == sum(lengths)
    assert store.episode_seeds.tolist() == [-1 if n % 5 == 4 else n for n in range(n_episodes)]
    assert store.episode_success.tolist() == [[1, 0, -1][n % 3] for n in range(n_episodes)]
    assert store.episode_tasks == [TASKS[n // 2 % 2] for n in range(n_episodes)]
    for number, episode in enumerate(expected):
        found = store.episode(number)
        assert set(found) == set(episode)
        for key, values in episode.items():
            assert found[key].dtype == values.dtype
            np.testing.assert_array_equal(found[key], values)


def assert_came_back(back: DemoStore, store: DemoStore, n_episodes: int) -> None:
    """Check that a store of numbered episodes, as `make_store` makes it, came back from another format whole."""
    assert_holds_numbered(back, n_episodes)
    assert back.fps == 20
    assert back.attributes["env"] == {"type": "toy"}
    assert back.features == store.features
    assert back.fingerprint() == store.fingerprint()
