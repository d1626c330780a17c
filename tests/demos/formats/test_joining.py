"""Several stores as one: every episode comes along, and what cannot be one is refused by name."""

from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import pytest
from forked import FORK
from numbered_episodes import FEATURES, append_numbered, assert_holds_numbered
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore, Feature
from pixio_robot.demos.formats.joining import joined_store
from pixio_robot.demos.store.layout import INTERVENTION
from pixio_robot.training.config import DemosConfig
from pixio_robot.training.data.opening import open_demonstrations

ENV = {"type": "toy", "task": "cube", "robot": "arm"}


def store_of(path: Path, numbers: range, features: dict[str, Feature] = FEATURES, **attributes: object) -> DemoStore:
    store = DemoStore.create(path, features, {"fps": 20, "env": ENV, "expert": "hand", **attributes})
    for number in numbers:
        append_numbered(store, number)
    store.close()
    return store


def test_stores_become_one(tmp_path: Path) -> None:
    stores = [
        store_of(tmp_path / "a.zarr", range(3)),
        store_of(tmp_path / "b.zarr", range(3, 7), env=ENV | {"task": "ball"}),
    ]
    with (tmp_path / "said").open("w") as said:
        console = Console(file=said, width=400)
        demos = DemosConfig(source="store", path=tuple(str(store.path) for store in stores))
        joined = open_demonstrations(demos, None, tmp_path / "outputs", console)
        again = joined_store(stores, tmp_path / "outputs" / "demos", console)
    assert_holds_numbered(joined, 7)
    assert joined.attributes["env"] == {"type": "toy", "robot": "arm"}  # what both say
    assert joined.attributes["expert"] == "hand"
    assert joined.attributes["joined"] == [str(store.path) for store in stores]
    assert again.path == joined.path
    assert "reusing" in (tmp_path / "said").read_text()


def test_steps_of_a_store_without_interventions_are_a_demonstrators(tmp_path: Path) -> None:
    corrected = store_of(tmp_path / "b.zarr", range(2, 4), FEATURES | {INTERVENTION: Feature((1,), "float32")})
    joined = joined_store([store_of(tmp_path / "a.zarr", range(2)), corrected], tmp_path, Console(quiet=True))
    ours, theirs = joined.episode(1)[INTERVENTION], joined.episode(2)[INTERVENTION]
    assert np.all(ours == 1)
    np.testing.assert_array_equal(theirs, corrected.episode(0)[INTERVENTION])


def test_a_recording_that_does_not_know_its_robot_joins_demonstrations(tmp_path: Path) -> None:
    recording = store_of(tmp_path / "b.zarr", range(2, 4), env=None)
    joined = joined_store([store_of(tmp_path / "a.zarr", range(2)), recording], tmp_path, Console(quiet=True))
    assert_holds_numbered(joined, 4)
    assert joined.attributes.get("env") is None


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"fps": 10}, r"b.zarr cannot be joined to .*a.zarr: their rates differ \(fps\)"),
        ({"env": ENV | {"robot": "leg"}}, r"their robots differ \(robot\)"),
        ({"names": {"action": ["x", "y", "z"]}}, r"their names differ \(action\)"),
        ({"features": {**FEATURES, "action": Feature((4,), "float32")}}, r"their features differ \(action\)"),
    ],
)
def test_what_cannot_be_one_store_is_refused(tmp_path: Path, other: dict, said: str) -> None:
    stores = [store_of(tmp_path / "a.zarr", range(1)), store_of(tmp_path / "b.zarr", range(1), **other)]
    with pytest.raises(UserError, match=said):
        joined_store(stores, tmp_path, Console(quiet=True))
    assert not list(tmp_path.glob("joined*"))


def join(folder: Path, start: Event) -> None:
    assert start.wait(60)
    stores = [DemoStore.open(folder / name) for name in ("a.zarr", "b.zarr")]
    assert_holds_numbered(joined_store(stores, folder / "demos", Console(quiet=True)), 40)


def test_two_runs_that_need_the_same_join_once(tmp_path: Path) -> None:
    store_of(tmp_path / "a.zarr", range(20))
    store_of(tmp_path / "b.zarr", range(20, 40))
    start = FORK.Event()
    runs = [FORK.Process(target=join, args=(tmp_path, start)) for _ in range(2)]
    for run in runs:
        run.start()
    start.set()
    for run in runs:
        run.join(60)
    assert [run.exitcode for run in runs] == [0, 0]
    assert len(list((tmp_path / "demos").iterdir())) == 1
