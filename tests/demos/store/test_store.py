import copy
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from numbered_episodes import FEATURES, append_numbered, assert_holds_numbered, random_episode

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore, Feature


def test_reads_back_what_was_appended(make_store):
    store = make_store(8)
    assert_holds_numbered(store, 8)
    reopened = DemoStore.open(store.path)
    assert_holds_numbered(reopened, 8)
    assert reopened.features == FEATURES
    assert reopened.image_keys == ["observation.images.front", "observation.images.wrist"]
    assert reopened.fps == 20
    assert reopened.attributes["env"] == {"type": "toy"}
    assert_holds_numbered(copy.copy(reopened), 8)  # what a worker process gets: the store, opened again by its path


def test_plain_zarr_reads_the_layout(make_store):
    store = make_store(5)
    # A process without our settings of zarr, as another project would read it.
    script = (
        "import sys, zarr; group = zarr.open_group(sys.argv[1], mode='r'); "
        "print(group['data/observation.images.front'][:].sum(), group['data/action'].shape, "
        "group['meta/episode_ends'][:].tolist(), sorted(name for name, _ in group.members()))"
    )
    printed = subprocess.run([sys.executable, "-W", "error", "-c", script, store.path], capture_output=True, text=True)
    frames = sum(int(random_episode(n)["observation.images.front"].sum()) for n in range(5))
    ends = store.episode_ends.tolist()
    assert printed.stdout.strip() == f"{frames} ({ends[-1]}, 3) {ends} ['data', 'meta']", printed.stderr
    images = zarr.open_array(store.path / "data/observation.images.front", mode="r")
    assert images.chunks == (1, 16, 20, 3)
    assert images.shards == (512, 16, 20, 3)


def test_episodes_across_several_files(tmp_path):
    # Up to 341 frames of 128 pixels share a file: the third episode lies in three of them.
    features = {"observation.images.a": Feature((128, 128, 3), "uint8"), "action": Feature((2,), "float32")}
    store = DemoStore.create(tmp_path / "demos.zarr", features, {"fps": 10})
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (700, 1, 128, 3), np.uint8).repeat(128, axis=1)
    bounds = [0, 200, 300, 700]
    for start, stop in itertools.pairwise(bounds):
        actions = np.arange(start, stop, dtype=np.float32)[:, None].repeat(2, axis=1)
        episode = {"observation.images.a": frames[start:stop], "action": actions}
        store.append_episode(episode, seed=0, success=True, task="push")
    assert len(list((store.path / "data/observation.images.a/c").glob("*"))) == 3
    reopened = DemoStore.open(store.path)
    steps = np.array([699, 3, 341, 340, 3, 0, 512])
    np.testing.assert_array_equal(reopened.read_steps("observation.images.a", steps), frames[steps])
    np.testing.assert_array_equal(reopened.read("observation.images.a", 190, 690), frames[190:690])
    np.testing.assert_array_equal(reopened.read("action", 0, 700)[:, 0], np.arange(700))


def cut_off(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def cut_off_a_byte(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def empty(file: Path) -> None:
    os.truncate(file, 0)


@pytest.mark.parametrize("harm", [cut_off, cut_off_a_byte, empty, Path.unlink])
@pytest.mark.parametrize(
    "name",
    [
        "data/observation.images.wrist/c/0/0/0/0",
        "data/action/c/0/0",
        "meta/episode_ends/c/0",
        "data/action/zarr.json",
    ],
)
def test_damaged_file_is_refused(make_store, name, harm):
    path = make_store(3).path
    harm(path / name)
    with pytest.raises(UserError, match="damaged") as caught:
        DemoStore.open(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_altered_frame_is_noticed_when_read(make_store):
    store = make_store(3)
    shard = store.path / "data/observation.images.front/c/0/0/0/0"
    content = bytearray(shard.read_bytes())
    # zarr writes the chunks in order, so a byte behind the first frame's lies in a later one.
    position = len(random_episode(0)["observation.images.front"][1].tobytes()) + 100
    content[position] ^= 1
    shard.write_bytes(content)
    damaged = DemoStore.open(store.path)
    damaged.read("observation.images.front", 0, 1)
    with pytest.raises(UserError, match=r"observation\.images\.front cannot be read"):
        damaged.read("observation.images.front", 0, damaged.num_steps)


def test_an_altered_index_is_noticed_when_frames_are_read(make_store):
    store = make_store(3)
    shard = store.path / "data/observation.images.front/c/0/0/0/0"
    content = shard.read_bytes()
    # At the end stand 16 bytes a frame (offset and length) and a checksum of 4. Two of them changing places gives whole
    # frames in the wrong order, which no frame's own checksum can tell.
    start = len(content) - 4 - 512 * 16
    first, second = content[start : start + 16], content[start + 16 : start + 32]
    shard.write_bytes(content[:start] + second + first + content[start + 32 :])
    for read in (lambda: store.read("observation.images.front", 0, 2), lambda: DemoStore.open(store.path)):
        with pytest.raises(UserError, match=r"observation\.images\.front cannot be read.*checksum of a file's index"):
            read()


def test_missing_array_is_refused(make_store):
    path = make_store(3).path
    shutil.rmtree(path / "data/observation.state")
    with pytest.raises(UserError, match=r"observation\.state"):
        DemoStore.open(path)


def test_what_is_no_store_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("hello")
    (tmp_path / "json").mkdir()
    (tmp_path / "json/zarr.json").write_text("{")
    zarr.open_group(tmp_path / "group", mode="w")
    for name in ("folder", "file", "json", "group"):
        with pytest.raises(UserError, match="not a demonstration store"):
            DemoStore.open(tmp_path / name)
    with pytest.raises(UserError, match="There is nothing at"):
        DemoStore.open(tmp_path / "nothing")
    with pytest.raises(UserError, match="exists"):
        DemoStore.create(tmp_path / "folder", FEATURES, {"fps": 20})
    (tmp_path / "newer").mkdir()
    attributes = {"schema": "pixio_robot.demo_store", "schema_version": 99}
    (tmp_path / "newer/zarr.json").write_text(json.dumps({"attributes": attributes}))
    with pytest.raises(UserError, match="version 1"):
        DemoStore.open(tmp_path / "newer")


def test_episode_must_fit(make_store):
    store = make_store(1)
    episode = random_episode(1)
    short = episode | {"action": episode["action"][:-1]}
    double = episode | {"action": episode["action"].astype(np.float64)}
    lacking = {key: values for key, values in episode.items() if key != "action"}
    none = {key: values[:0] for key, values in episode.items()}
    for wrong in (short, double, lacking, none):
        with pytest.raises(UserError):
            store.append_episode(wrong, seed=1, success=True, task="x")
    assert_holds_numbered(DemoStore.open(store.path), 1)


def test_fingerprint_follows_the_data(make_store, tmp_path):
    store = make_store(2)
    before = store.fingerprint()
    copy = shutil.copytree(store.path, tmp_path / "copy.zarr")
    assert DemoStore.open(copy).fingerprint() == before
    append_numbered(store, 2)
    assert store.fingerprint() != before
    assert DemoStore.open(store.path).fingerprint() == store.fingerprint()
    other = DemoStore.open(copy)
    episode = random_episode(2)
    episode["observation.images.front"][-1, -1, -1, -1] ^= 1  # one bit
    other.append_episode(episode, seed=2, success=None, task="open the drawer")
    assert other.fingerprint() != store.fingerprint()


def test_statistics(tmp_path):
    features = {"observation.images.a": Feature((4, 4, 3), "uint8"), "action": Feature((2,), "float32")}
    store = DemoStore.create(tmp_path / "demos.zarr", features, {"fps": 10})
    rng = np.random.default_rng(0)
    frames = rng.integers(20, 200, (300, 4, 4, 3), np.uint8) + np.array([0, 10, 55], np.uint8)
    actions = rng.normal([5, -100], [1, 0.01], (300, 2)).astype(np.float32)
    for part in np.split(np.arange(300), 3):
        episode = {"observation.images.a": frames[part], "action": actions[part]}
        store.append_episode(episode, seed=0, success=True, task="push")
    statistics = store.statistics()
    for name, function in (("mean", np.mean), ("std", np.std), ("min", np.min), ("max", np.max)):
        np.testing.assert_allclose(statistics["action"][name], function(actions.astype(np.float64), axis=0), rtol=1e-6)
        assert statistics["action"][name].shape == (2,)
        expected = function(frames / 255, axis=(0, 1, 2)).reshape(3, 1, 1)
        # Of 300 frames, 256 are sampled.
        np.testing.assert_allclose(statistics["observation.images.a"][name], expected, atol=0.005)
    assert statistics["action"]["count"].tolist() == [300]
    assert statistics["observation.images.a"]["count"].tolist() == [256]
