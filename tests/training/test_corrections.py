"""A policy drives, an expert takes over; the store says who acted, and training imitates the expert alone."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from toy_corrections import corrected
from toy_expert_env import ToyExpertEnvConfig

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore
from pixio_robot.demos.collection.collection import collect
from pixio_robot.training.corrections import Takeover


def record(path: Path, takeover: Takeover, n: int = 4) -> DemoStore:
    config = ToyExpertEnvConfig(episode_length=60)
    return collect(config, path, n, workers=1, console=Console(quiet=True), corrected=partial(corrected, takeover))


def test_the_expert_ends_what_a_stuck_policy_began(tmp_path):
    store = record(tmp_path / "c.zarr", "stuck")
    for index in range(store.num_episodes):
        episode = store.episode(index)
        acted = episode["intervention"][:, 0] == 1
        assert not acted[:14].any() and acted[-1], "the policy drives for the 1.5 s that show that it is stuck"
        assert np.diff(acted.astype(int)).tolist().count(1) == 1
        assert not episode["action"][~acted].any(), "what the policy did is recorded"
    assert (store.episode_success == 1).all()


def test_by_chance_they_take_turns_that_follow_from_the_seed(tmp_path):
    store, again = record(tmp_path / "c.zarr", "chance"), record(tmp_path / "again.zarr", "chance")
    assert store.fingerprint() == again.fingerprint()
    acted = [store.episode(index)["intervention"][:, 0] == 1 for index in range(store.num_episodes)]
    turns = [np.flatnonzero(np.diff(marks.astype(int)) == 1) for marks in acted]
    assert not any(marks[0] for marks in acted), "the policy begins"
    assert len({int(first[0]) for first in turns}) > 1, "and is taken over from at times that differ"


def test_corrections_join_demonstrations_that_say_who_acted(tmp_path):
    path = tmp_path / "c.zarr"
    assert record(path, "stuck", 2).num_episodes == 2
    assert record(path, "chance", 5).num_episodes == 5
    plain = tmp_path / "plain.zarr"
    collect(ToyExpertEnvConfig(episode_length=60), plain, 2, workers=1, console=Console(quiet=True))
    with pytest.raises(UserError, match="holds other demonstrations"):
        record(plain, "chance", 4)
