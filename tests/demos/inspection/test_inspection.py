"""scripts/inspect_demos.py: what is in a store, and every kind of damage that it reports."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from forked_scripts import run_script
from numbered_episodes import FEATURES, TASKS, Episode, random_episode
from PIL import Image

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore, Feature
from pixio_robot.demos.inspection.inspection import Inspection, inspect_store, open_damaged
from pixio_robot.demos.inspection.pictures import STRIP_CAPTION, STRIP_GAP, STRIP_HEIGHT
from pixio_robot.demos.inspection.report import run_inspection

ROOT = Path(__file__).parents[3]
FRONT, WRIST, STATE = "observation.images.front", "observation.images.wrist", "observation.state"
FPS = 20
ALTERED = 3  # the episode that is not as it should be


def make_episodes(
    path: Path,
    alter: Callable[[Episode], None] = lambda _: None,
    *,
    n_steps: int = 80,
    features: dict[str, Feature] = FEATURES,
    attributes: dict[str, Any] | None = None,
) -> DemoStore:
    """Make five episodes of a smoothly moving state and random frames and actions, one of them altered."""
    store = DemoStore.create(path / "demos.zarr", features, attributes or {"fps": FPS})
    for number in range(5):
        episode = random_episode(number, features, n_steps)
        # Uneven periods, so that no dimension is still at its turning points while all others are.
        phases = np.arange(n_steps)[:, None] / np.array([7, 9, 11, 13, 17]) + number
        episode[STATE] = np.sin(phases).astype(np.float32)
        if "timestamp" in features:
            episode["timestamp"] = np.arange(n_steps, dtype=np.float32)[:, None] / FPS
        if number == ALTERED:
            alter(episode)
        store.append_episode(episode, seed=number, success=True, task=TASKS[0])
    store.close()
    return store


def places(inspection: Inspection) -> list[tuple[str, str | None, int | None, tuple[int, int] | None]]:
    """Kind and place of each finding, once it is sure that its sentence says the same."""
    for finding in inspection.findings:
        if finding.steps is not None:
            first, last = finding.steps
            steps = f"step {first}" if first == last else f"steps {first} to {last}"
            assert finding.sentence.startswith(f"Episode {finding.episode}, {steps}: ")
        assert finding.key is None or finding.key in finding.sentence
    return [(finding.kind, finding.key, finding.episode, finding.steps) for finding in inspection.findings]


def test_numbered_store_is_clean_and_counted(make_store):
    store = make_store(8)
    inspection = inspect_store(store)
    episodes = [random_episode(number) for number in range(8)]
    assert inspection.findings == []
    assert inspection.lengths == [len(episode["action"]) for episode in episodes]
    assert inspection.tasks == {TASKS[0]: 4, TASKS[1]: 4}
    assert (inspection.outcomes_known, inspection.successes) == (6, 3)  # true, false and unknown take turns
    assert inspection.fps == 20
    np.testing.assert_array_equal(inspection.signals[STATE], np.concatenate([episode[STATE] for episode in episodes]))
    assert inspection.bytes_on_disk > sum(episode[FRONT][1::3].nbytes for episode in episodes)


def test_smooth_store_is_clean(tmp_path):
    features = FEATURES | {"timestamp": Feature((1,), "float32")}
    store = make_episodes(tmp_path, features=features, attributes={"fps": FPS, "env": {"fps": FPS}})
    assert inspect_store(store).findings == []


@pytest.mark.parametrize(("key", "value"), [(STATE, np.nan), ("action", np.inf)])
def test_non_finite_values(tmp_path, key, value):
    def alter(episode: Episode) -> None:
        episode[key][[17, 19], 2] = value

    assert places(inspect_store(make_episodes(tmp_path, alter))) == [("non_finite", key, ALTERED, (17, 19))]


def test_non_finite_values_of_larger_arrays(tmp_path):
    def alter(episode: Episode) -> None:
        episode["observation.depth"][70:72, 1, 2] = np.nan

    features = FEATURES | {"observation.depth": Feature((4, 6), "float32")}
    store = make_episodes(tmp_path, alter, features=features)
    assert places(inspect_store(store)) == [("non_finite", "observation.depth", ALTERED, (70, 71))]


@pytest.mark.parametrize(
    ("n_repeated", "frozen_steps", "is_found"), [(10, None, True), (9, None, False), (9, 9, True), (10, 11, False)]
)
def test_frozen_camera(tmp_path, n_repeated, frozen_steps, is_found):
    first = 58  # frames are read 64 at a time

    def alter(episode: Episode) -> None:
        episode[WRIST][first : first + n_repeated] = episode[WRIST][first + 1]

    found = places(inspect_store(make_episodes(tmp_path, alter), frozen_steps=frozen_steps))
    assert found == [("frozen_camera", WRIST, ALTERED, (first, first + n_repeated - 1))] * is_found


def test_a_camera_that_sees_a_robot_at_rest_is_not_frozen(tmp_path):
    def alter(episode: Episode) -> None:
        episode[FRONT][20:32] = episode[FRONT][20]
        episode[STATE][19:33] = episode[STATE][19]

    assert inspect_store(make_episodes(tmp_path, alter)).findings == []


@pytest.mark.parametrize(
    ("keys", "n_steps", "is_found"),
    [((STATE, "action"), 20, True), ((STATE, "action"), 19, False), ((STATE,), 30, False), (("action",), 30, False)],
)
def test_idle_stretches(tmp_path, keys, n_steps, is_found):
    def alter(episode: Episode) -> None:
        for key in keys:
            jitter = np.random.default_rng(0).uniform(-1e-3, 1e-3, (n_steps, episode[key].shape[1]))
            episode[key][11 : 11 + n_steps] = episode[key][11] + jitter

    store = make_episodes(tmp_path, alter, attributes={"fps": FPS})
    found = [place for place in places(inspect_store(store)) if place[0] == "idle"]
    assert found == [("idle", None, ALTERED, (11, 10 + n_steps))] * is_found


def test_jump_of_the_state(tmp_path):
    def alter(episode: Episode) -> None:
        episode[STATE][40, 1] += 5  # there and back

    inspection = inspect_store(make_episodes(tmp_path, alter))
    assert places(inspection) == [("jump", STATE, ALTERED, (39, 41))]
    assert "in dimension 1" in inspection.findings[0].sentence


def test_a_switching_gripper_and_a_new_episode_are_no_jumps(tmp_path):
    rng = np.random.default_rng(0)
    features = {STATE: Feature((3,), "float32")}
    store = DemoStore.create(tmp_path / "demos.zarr", features, {"fps": FPS})
    for episode in range(5):
        steps = np.arange(300)
        gripper = (steps > 150) + rng.normal(0, 1e-4, 300)  # one of its steps in 300 is a thousand times the others
        flag = steps == 299
        place = np.sin(steps / 30) + 100 * episode
        state = np.stack([gripper, flag, place], axis=1).astype(np.float32)
        store.append_episode({STATE: state}, seed=None, success=None, task="grasp")
    assert [place for place in places(inspect_store(store)) if place[0] == "jump"] == []


@pytest.mark.parametrize("fps", [0, -20, None, "20", True])
def test_a_store_with_an_unusable_fps_is_refused(tmp_path, fps):
    with pytest.raises(UserError, match="damaged.*fps"):
        make_episodes(tmp_path, attributes={"fps": fps})


def test_fps_other_than_the_environments(tmp_path):
    inspection = inspect_store(make_episodes(tmp_path, attributes={"fps": FPS, "env": {"type": "toy", "fps": 30}}))
    assert [finding.kind for finding in inspection.findings] == ["wrong_fps"]
    assert "20" in inspection.findings[0].sentence
    assert "30" in inspection.findings[0].sentence


def test_clock_that_disagrees_with_fps_or_loses_a_step(tmp_path):
    def slow(episode: Episode) -> None:
        episode["timestamp"] *= 1.5

    def lossy(episode: Episode) -> None:
        episode["timestamp"][31:] += 1 / FPS

    features = FEATURES | {"timestamp": Feature((1,), "float32")}
    for alter, steps in ((slow, (0, 79)), (lossy, (30, 31))):
        (tmp_path / alter.__name__).mkdir()
        store = make_episodes(tmp_path / alter.__name__, alter, features=features)
        assert places(inspect_store(store)) == [("wrong_fps", "timestamp", ALTERED, steps)]


def test_damaged_frame_is_reported_and_the_rest_inspected(tmp_path):
    def alter(episode: Episode) -> None:
        episode[WRIST][20:35] = episode[WRIST][21]

    store = make_episodes(tmp_path, alter)
    shard = store.path / "data" / FRONT / "c/0/0/0/0"
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 1
    shard.write_bytes(content)
    damaged = open_damaged(store.path)
    expected = []
    for episode in range(5):
        try:
            damaged.episode(episode)
        except UserError:
            expected.append(("damaged", FRONT, episode, (0, 79)))
    assert len(expected) == 1
    assert places(inspect_store(damaged)) == [*expected, ("frozen_camera", WRIST, ALTERED, (20, 34))]


@pytest.mark.parametrize("key", [WRIST, STATE])
def test_missing_file_is_reported_for_every_episode_in_it(tmp_path, key):
    store = make_episodes(tmp_path)
    next(file for file in (store.path / "data" / key / "c").rglob("*") if file.is_file()).unlink()
    found = places(inspect_store(open_damaged(store.path)))
    assert found == [("damaged", key, episode, (0, 79)) for episode in range(5)]


def test_files(tmp_path):
    store = DemoStore.create(tmp_path / "demos.zarr", FEATURES, {"fps": FPS})
    n_steps = 29  # eight of them, spread evenly, are every fourth
    for number in range(2):
        episode = random_episode(number, n_steps=n_steps)
        for key in (FRONT, WRIST):
            episode[key][:] = (8 * np.arange(n_steps, dtype=np.uint8) + number)[:, None, None, None]
        store.append_episode(episode, seed=0, success=True, task=TASKS[0])
    store.close()
    folder = tmp_path / "found"
    inspection = run_inspection(store.path, folder, episode=1)
    names = {"inspection.json", "lengths.png", "histograms.png", "strip.png", "episode_000001.mp4"}
    assert {file.name for file in folder.iterdir()} == names

    record = json.loads((folder / "inspection.json").read_text())
    assert (record["episodes"], record["steps"], record["fps"]) == (2, 2 * n_steps, FPS)
    assert record["lengths"] == {"min": n_steps, "median": n_steps, "max": n_steps, "all": [n_steps] * 2}
    state = inspection.signals[STATE].astype(np.float64)
    np.testing.assert_allclose(record["features"][STATE]["mean"], state.mean(axis=0))
    assert record["features"][STATE]["max"] == state.max(axis=0).tolist()
    assert record["findings"] == []

    for name in ("lengths.png", "histograms.png"):
        assert np.asarray(Image.open(folder / name).convert("L")).std() > 1  # something is drawn
    strip = np.asarray(Image.open(folder / "strip.png"))
    widths = (STRIP_HEIGHT * 20 // 16, STRIP_HEIGHT)
    row_height = STRIP_CAPTION + STRIP_HEIGHT + STRIP_GAP
    assert strip.shape == (2 * row_height, 8 * widths[0] + 9 * STRIP_GAP, 3)
    for row, width in enumerate(widths):
        middle = row * row_height + STRIP_CAPTION + STRIP_HEIGHT // 2
        columns = STRIP_GAP + np.arange(8) * (width + STRIP_GAP) + width // 2
        assert strip[middle, columns, 0].tolist() == [8 * step + 1 for step in range(0, n_steps, 4)]

    with av.open(str(folder / "episode_000001.mp4")) as video:
        stream = video.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(stream)]
        assert stream.average_rate == FPS
    assert len(frames) == n_steps
    assert frames[0].shape == (256, 320 + 256, 3)
    np.testing.assert_allclose([frame.mean() for frame in frames], 8 * np.arange(n_steps) + 1, atol=4)


def test_pictures_of_a_damaged_episode_are_left_out(tmp_path):
    def alter(episode: Episode) -> None:
        episode["action"][5] = np.nan
        episode[STATE][:] = 7

    store = make_episodes(tmp_path, alter)
    folder = tmp_path / "found"
    run_inspection(store.path, folder)
    assert (folder / "strip.png").exists()
    (store.path / "data" / FRONT / "c/0/0/0/0").unlink()
    run_inspection(store.path, folder)
    assert {file.name for file in folder.iterdir()} == {"inspection.json", "lengths.png", "histograms.png"}
    record = json.loads((folder / "inspection.json").read_text())
    assert record["fps"] == FPS
    kinds = [finding["kind"] for finding in record["findings"]]
    assert kinds[:6] == ["damaged"] * 5 + ["non_finite"]


def test_mistakes(tmp_path, make_store):
    path = make_store(5).path
    for episode, nearest in ((5, 4), (99, 4), (-1, 0)):
        with pytest.raises(
            UserError, match=f"has no episode {episode}: it has 0 to 4; the nearest is episode={nearest}"
        ):
            run_inspection(path, tmp_path / "found", episode=episode)
    with pytest.raises(UserError, match="not a demonstration store"):
        run_inspection(tmp_path, tmp_path / "found")
    with pytest.raises(UserError, match="frozen_steps=1"):
        run_inspection(path, tmp_path / "found", frozen_steps=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot make the folder"):
        run_inspection(path, tmp_path / "file")
    empty = DemoStore.create(tmp_path / "empty.zarr", FEATURES, {"fps": FPS})
    with pytest.raises(UserError, match="no finished episode"):
        run_inspection(empty.path, tmp_path / "found")


def test_script(tmp_path):
    def alter(episode: Episode) -> None:
        episode[STATE][17, 2] = np.nan

    make_episodes(tmp_path, alter, attributes={"fps": FPS, "env": {"type": "toy", "task": "Lift"}})
    done = run_script("inspect_demos.py", "path=demos.zarr", "video=false", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Episode 3, step 17: observation.state is not finite" in done.stdout
    for words in (FRONT, "16 × 20 × 3", "float32", "80 / 80 / 80 steps", TASKS[0], "toy Lift", "5 of 5 known", "lz4"):
        assert words in done.stdout
    files = {file.name for file in (tmp_path / "outputs/inspections/demos").iterdir()}
    assert files == {"inspection.json", "lengths.png", "histograms.png", "strip.png"}

    done = run_script("inspect_demos.py", "path=nowhere.zarr", cwd=tmp_path)
    assert done.returncode == 2
    assert "There is nothing at" in done.stderr and "nowhere.zarr" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
