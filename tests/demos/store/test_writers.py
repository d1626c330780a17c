"""Writers that are killed, meet a full disk or each other leave whole episodes only."""

import errno
import itertools
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from pathlib import Path

import pytest
import zarr
from forked import FORK, enlarge_small_disk, mount_small_disk, run_forked
from numbered_episodes import FEATURES, append_numbered, assert_holds_numbered, random_episode

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore

# Forked, since a process that imports torch anew takes seconds; the store knows nothing of its writer's past.


def append_until_killed(path: Path, killed_at_rename: int) -> None:
    """Append the next episode, dying just before a file is put in its place."""
    renames = itertools.count()

    def count(event: str, _: object) -> None:
        if event == "os.rename" and next(renames) == killed_at_rename:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    store = DemoStore.open(path)
    append_numbered(store, store.num_episodes)


@pytest.mark.parametrize("n_before", [0, 2])
def test_killed_before_any_single_write(make_store, n_before):
    path = make_store(n_before).path
    for killed_at in itertools.count():
        if run_forked(append_until_killed, path, killed_at) == 0:
            break
        store = DemoStore.open(path)
        assert_holds_numbered(store, n_before)
    assert killed_at > 10  # each of four data and five meta arrays takes two files
    assert_holds_numbered(DemoStore.open(path), n_before + 1)
    # The episode whose remains were overwritten again and again may have been longer than the next ones.
    store = DemoStore.open(path)
    for number in range(n_before + 1, n_before + 4):
        append_numbered(store, number)
    assert_holds_numbered(DemoStore.open(path), n_before + 4)
    assert not list(path.rglob("*.partial"))


def append_forever(path: Path, acknowledge: "multiprocessing.connection.Connection") -> None:
    store = DemoStore.open(path)
    while True:
        append_numbered(store, store.num_episodes)
        acknowledge.send(store.num_episodes)


@pytest.mark.parametrize("n_kills", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_at_random_times(make_store, n_kills):
    path = make_store(0).path
    delays = random.Random(7)
    n_kept = 0
    for kill in range(1, n_kills + 1):
        receiver, sender = FORK.Pipe(duplex=False)
        process = FORK.Process(target=append_forever, args=(path, sender))
        process.start()
        sender.close()
        n_acknowledged = receiver.recv()
        time.sleep(delays.uniform(0, 0.1))
        process.kill()
        process.join()
        while receiver.poll():
            try:
                n_acknowledged = receiver.recv()
            except EOFError:
                break
        store = DemoStore.open(path)
        # An episode may be finished on disk before its acknowledgement is on its way.
        assert n_acknowledged <= store.num_episodes <= n_acknowledged + 1
        assert store.num_episodes > n_kept
        n_kept = store.num_episodes
        if kill % (n_kills // 10) == 0:  # all episodes so far: what an earlier kill had damaged would show, too
            assert_holds_numbered(store, n_kept)


def test_remains_of_a_longer_episode_are_overwritten(make_store):
    store = make_store(2)
    unfinished = random_episode(100, n_steps=40)
    for key, values in unfinished.items():
        array = zarr.open_array(store.path / "data" / key, mode="r+")
        array.resize((store.num_steps + 40, *array.shape[1:]))
        array[store.num_steps :] = values
    reopened = DemoStore.open(store.path)
    assert_holds_numbered(reopened, 2)
    append_numbered(reopened, 2)
    assert_holds_numbered(DemoStore.open(store.path), 3)
    assert zarr.open_array(store.path / "data/action", mode="r").shape[0] == reopened.num_steps


def append_endlessly(store: DemoStore) -> None:
    for number in itertools.count():
        append_numbered(store, number)


def append_on_full_disk(folder: Path) -> None:
    mount_small_disk(folder)
    store = DemoStore.create(folder / "demos.zarr", FEATURES, {"fps": 20})
    with pytest.raises(UserError, match=r"disk is full.* finished episodes are kept") as caught:
        append_endlessly(store)
    assert os.strerror(errno.ENOSPC) in str(caught.value)
    number = store.num_episodes
    assert number > 10
    assert_holds_numbered(store, number)
    assert_holds_numbered(DemoStore.open(store.path), number)

    enlarge_small_disk(folder)
    append_numbered(store, number)
    assert_holds_numbered(store, number + 1)
    assert_holds_numbered(DemoStore.open(store.path), number + 1)


def test_full_disk_keeps_finished_episodes(tmp_path):
    assert run_forked(append_on_full_disk, tmp_path / "disk") == 0


def append_under_file_size_limit(path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
    store = DemoStore.open(path)
    with pytest.raises(UserError, match=os.strerror(errno.EFBIG)):
        append_endlessly(store)
    assert_holds_numbered(store, store.num_episodes)


def test_file_size_limit_keeps_finished_episodes(make_store):
    path = make_store(0).path
    assert run_forked(append_under_file_size_limit, path) == 0
    store = DemoStore.open(path)
    n_episodes = store.num_episodes
    assert n_episodes > 2
    assert_holds_numbered(store, n_episodes)
    append_numbered(store, n_episodes)
    assert_holds_numbered(DemoStore.open(path), n_episodes + 1)


def append_and_exit(path: Path, number: int) -> None:
    try:
        append_numbered(DemoStore.open(path), number)
    except UserError as error:
        os._exit(3 if "Another process" in str(error) else 4)
    os._exit(0)


def test_one_process_appends_at_a_time(make_store):
    path = make_store(1).path
    stale = DemoStore.open(path)
    store = DemoStore.open(path)
    append_numbered(store, 1)
    assert run_forked(append_and_exit, path, 2) == 3
    store.close()
    assert run_forked(append_and_exit, path, 2) == 0
    # A store that was opened before the others appended goes on from what is there.
    append_numbered(stale, 3)
    assert_holds_numbered(DemoStore.open(path), 4)
