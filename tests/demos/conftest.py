from collections.abc import Callable
from pathlib import Path

import pytest
from numbered_episodes import FEATURES, append_numbered

from pixio_robot.demos import DemoStore


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[[int], DemoStore]:
    """Return a function that makes a store of so many numbered episodes."""

    def make(n_episodes: int) -> DemoStore:
        store = DemoStore.create(tmp_path / "demos.zarr", FEATURES, {"fps": 20, "env": {"type": "toy"}})
        for number in range(n_episodes):
            append_numbered(store, number)
        store.close()
        return store

    return make
