"""Streams: exact resume, shares of processes, proportions of mixtures, damaged input."""

import contextlib
import io
import json
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from forked_scripts import run_python
from PIL import Image
from rich.console import Console
from tar_shards import jpeg, write_shard, write_shards

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore, Feature
from pixio_robot.demos.formats.lerobot import export_lerobot
from pixio_robot.engine.checkpoints import merge_states
from pixio_robot.engine.objective import Batch
from pixio_robot.pretraining.batches import preview, training_batches
from pixio_robot.pretraining.config import PretrainConfig
from pixio_robot.pretraining.sources import ImageCache, ImageSource, Lane, Sample, open_source
from pixio_robot.pretraining.sources.shards import ShardStream

CONFIG = PretrainConfig(variant="pixio_tiny16", image_size=16, batch_size=8, lanes=2, accumulation=1, steps=20, lr=1e-3)

ONLY = Lane(seed=0, lane=0, lanes=1)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"), 5, 7)


def first_samples(source: ImageSource, count: int, lane: Lane = ONLY) -> list[Sample]:
    assert not isinstance(source, ImageCache)
    samples = source.samples(lane)
    found = list(islice(samples, count))
    samples.close()
    return found


def batches(
    source: ImageSource, first: int, last: int, process: int = 0, processes: int = 1, state: dict | None = None
) -> list[Batch]:
    return list(training_batches(CONFIG, source, first, last, process, processes, state))


def assert_same(some: list[Batch], others: list[Batch]) -> None:
    assert [batch.step for batch in some] == [batch.step for batch in others]
    for one, other in zip(some, others, strict=True):
        assert one.names == other.names
        assert one.state == other.state
        assert one.skipped == other.skipped
        assert torch.equal(one.data, other.data)


@pytest.fixture(scope="module")
def lerobot_datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Datasets as LeRobot itself writes them, one of videos and one of images; frame n of an episode has colour n."""
    folder = tmp_path_factory.mktemp("lerobot")
    features = {
        "observation.images.front": Feature((32, 48, 3), "uint8"),
        "observation.images.wrist": Feature((32, 32, 3), "uint8"),
        "action": Feature((1,), "float32"),
    }
    store = DemoStore.create(folder / "demos.zarr", features, {"fps": 20})
    for episode, steps in enumerate((9, 4, 7)):
        frames = {
            key: np.full((steps, *feature.shape), 60 * episode, feature.dtype) for key, feature in features.items()
        }
        for camera, offset in (("front", 0), ("wrist", 10)):
            frames[f"observation.images.{camera}"] += (offset + 5 * np.arange(steps, dtype=np.uint8))[
                :, None, None, None
            ]
        store.append_episode(frames, seed=None, success=None, task="test")
    roots = {"video": folder / "video", "images": folder / "images"}
    for name, root in roots.items():
        export_lerobot(store, root, f"local/{name}", use_videos=name == "video", console=Console(file=io.StringIO()))
    return roots


@pytest.mark.parametrize("kind", ["video", "images"])
def test_lerobot_frames_are_those_of_their_episode_camera_and_time(
    kind: str, lerobot_datasets: dict[str, Path], tmp_path: Path
) -> None:
    source = open_source({"kind": "lerobot", "path": str(lerobot_datasets[kind]), "every": 3}, tmp_path)
    assert not isinstance(source, ImageCache)
    assert source.images == 2 * (3 + 2 + 3)
    samples = first_samples(source, 16)
    assert len({sample.name for sample in samples}) == 16
    for sample in samples:
        camera, _, episode, _, frame = sample.name.split()
        offset = 10 if camera.endswith("wrist") else 0
        assert sample.aspect == (1.0 if offset else 1.5)
        # Videos are lossy, but neighbours are 5 apart.
        assert sample.pixels.mean() == pytest.approx(60 * int(episode) + offset + 5 * int(frame), abs=2)


def test_a_damaged_video_is_named_and_the_others_go_on(lerobot_datasets: dict[str, Path], tmp_path: Path) -> None:
    root = shutil.copytree(lerobot_datasets["video"], tmp_path / "damaged")
    (file,) = root.glob("videos/observation.images.wrist/*/*.mp4")
    file.write_bytes(b"no video")
    samples = first_samples(open_source({"kind": "lerobot", "path": str(root), "every": 1}, tmp_path), 30)
    assert all("front" in sample.name for sample in samples)
    assert any("wrist" in name for sample in samples for name in sample.skipped)


Opener = Callable[[], ImageSource]


@pytest.fixture(params=["folder", "shards", "video", "images", "mixture"])
def opener(request: pytest.FixtureRequest, shards: Path, image_folder: Path, tmp_path: Path) -> Opener:
    values = {
        "folder": {"kind": "folder", "path": str(image_folder), "side": 20},
        "shards": {"kind": "shards", "path": str(shards)},
        "mixture": {
            "kind": "mixture",
            "sources": [
                {"kind": "shards", "path": str(shards), "weight": 2},
                {"kind": "folder", "path": str(image_folder), "side": 20, "weight": 1},
            ],
        },
    }
    if request.param in ("video", "images"):
        root = request.getfixturevalue("lerobot_datasets")[request.param]
        values[request.param] = {"kind": "lerobot", "path": str(root), "every": 2, "pieces_in_memory": 2}
    return lambda: open_source(values[request.param], tmp_path / "cache")


def test_a_run_resumed_at_any_step_sees_what_the_uninterrupted_one_sees(opener: Opener) -> None:
    whole = batches(opener(), 0, 16)
    assert len({name for batch in whole for name in batch.names}) > 8
    for first in np.random.default_rng().choice(range(1, 15), 3, replace=False).tolist():
        state = json.loads(json.dumps(whole[first - 1].state))
        assert_same(batches(opener(), first, 16, state=state), whole[first:])


def test_two_processes_share_the_batches_of_one_and_can_take_over_from_it(opener: Opener) -> None:
    whole = batches(opener(), 0, 8)
    for first, state in ((0, None), (3, whole[2].state)):
        parts = [batches(opener(), first, 8, process, 2, state) for process in (0, 1)]
        for one, left, right in zip(whole[first:], *parts, strict=True):
            assert one.names == left.names + right.names
            assert torch.equal(one.data, torch.cat([left.data, right.data]))
            assert one.state == merge_states([left.state, right.state])


def test_every_pass_over_shards_shows_every_image_once_in_a_new_order(shards: Path) -> None:
    samples = first_samples(ShardStream(str(shards)), 70)
    passes = [[sample.name for sample in samples[start : start + 35]] for start in (0, 35)]
    assert len(set(passes[0])) == 35
    assert sorted(passes[0]) == sorted(passes[1])
    assert passes[0] != passes[1]
    assert passes[0] != sorted(passes[0])
    number = int(samples[0].name[-9:-4])
    expected = np.asarray(Image.open(io.BytesIO(jpeg(number))))
    assert np.array_equal(samples[0].pixels, expected)
    assert samples[0].aspect == 20 / 16


def test_lanes_share_the_shards(shards: Path) -> None:
    counts = (14, 14, 7)  # five shards of seven images, shared out in turn
    lanes = [first_samples(ShardStream(str(shards)), count, Lane(0, lane, 3)) for lane, count in enumerate(counts)]
    names = [sample.name for lane in lanes for sample in lane]
    assert len(set(names)) == len(names) == 35


def test_brace_notation_and_file_urls_name_the_same_images(shards: Path) -> None:
    folder = {sample.name for sample in first_samples(ShardStream(str(shards)), 35)}
    for path in (f"{shards}/shard-{{000..004}}.tar", f"file:{shards}/shard-{{000..004}}.tar"):
        assert {sample.name for sample in first_samples(ShardStream(path), 35)} == folder


def test_large_images_are_shrunk_and_keep_their_shape(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", {"wide.jpg": jpeg(0, (400, 100))})
    (sample,) = first_samples(ShardStream(str(tmp_path), side=40), 1)
    assert sample.pixels.shape == (40, 160, 3)


def test_damaged_images_are_named_and_the_next_ones_take_their_place(tmp_path: Path) -> None:
    contents = {f"{number}.jpg": jpeg(number) for number in range(6)}
    contents["3.jpg"] = contents["3.jpg"][:150]
    contents["5.jpg"] = b""
    write_shard(tmp_path / "a.tar", contents)
    samples = first_samples(ShardStream(str(tmp_path)), 9)
    shown = [sample.name for sample in samples]
    assert sorted(shown[:4]) == ["a.tar/0.jpg", "a.tar/1.jpg", "a.tar/2.jpg", "a.tar/4.jpg"]
    skipped = [name for sample in samples for name in sample.skipped]
    assert set(skipped) == {"a.tar/3.jpg", "a.tar/5.jpg"}
    whole = batches(ShardStream([str(tmp_path / "a.tar")] * 2), 0, 6)
    assert Counter(name for batch in whole for name in batch.skipped)
    state = whole[1].state
    assert_same(batches(ShardStream([str(tmp_path / "a.tar")] * 2), 2, 6, state=state), whole[2:])


def test_a_shard_that_was_cut_off_gives_what_is_left_of_it(tmp_path: Path) -> None:
    write_shards(tmp_path, 1, 6)
    file = tmp_path / "shard-000.tar"
    file.write_bytes(file.read_bytes()[:3300])
    samples = first_samples(ShardStream(str(tmp_path)), 4)
    assert len({sample.name for sample in samples}) < 4
    assert any("rest of" in name for sample in samples for name in sample.skipped)


def test_mixtures_keep_their_proportions(shards: Path, image_folder: Path, tmp_path: Path) -> None:
    sources = [
        {"kind": "folder", "path": str(image_folder), "side": 8, "weight": 3},
        {"kind": "folder", "path": str(image_folder), "side": 9, "weight": 1},
    ]
    mixture = open_source({"kind": "mixture", "sources": sources}, tmp_path)
    counts = Counter(sample.name.split("/")[0] for sample in first_samples(mixture, 2000))
    # Five standard deviations of a binomial count.
    assert counts["folder0"] == pytest.approx(1500, abs=5 * (2000 * 0.75 * 0.25) ** 0.5)


def test_previews_show_images_of_the_source(opener: Opener) -> None:
    source = opener()
    shown = preview(source, 5, 32)
    assert shown.shape == (5, 32, 32, 3)
    assert len(shown.flatten(1).unique(dim=0)) > 1
    assert torch.equal(shown, preview(source, 5, 32))


@pytest.fixture
def toy_frames(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Register the toy generator by a distribution of its own, since child processes must find it too."""
    info = tmp_path / "site" / "toy_frames-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy_frames\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[pixio_robot.frames]\ntoy = toy_frames:ToyFrames\n")
    (tmp_path / "site" / "toy_frames.py").write_text(
        (Path(__file__).parents[2] / "helpers" / "toy_frames.py").read_text()
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return


@pytest.mark.usefixtures("toy_frames")
def test_live_frames_are_rendered_in_other_processes_and_resume(tmp_path: Path) -> None:
    values = {"kind": "live", "generator": "toy", "side": 8, "seed": 3, "workers": 1, "units_in_memory": 1}
    source = open_source(values, tmp_path)
    whole = batches(source, 0, 36)
    names = [name for batch in whole for name in batch.names]
    assert len(set(names)) == 36 * 8  # frames never repeat
    for first in (5, 20):
        assert_same(batches(source, first, 36, state=whole[first - 1].state), whole[first:])
    (sample,) = first_samples(source, 1)
    index = int(sample.name.split()[-1])
    expected = np.random.default_rng([3, index]).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert np.array_equal(sample.pixels, expected)
    with pytest.raises(UserError, match="choose from grey, red"):
        first_samples(open_source(values | {"families": ["blue"]}, tmp_path), 1)
    with pytest.raises(UserError, match="Cannot render the frames of toy: worker ended with exit code 3"):
        first_samples(open_source(values | {"side": 1}, tmp_path), 1)


KILLED = """
import multiprocessing, os, signal, sys
from pathlib import Path
from pixio_robot.pretraining.sources import Lane, open_source

if __name__ == "__main__":
    values = {"kind": "live", "generator": "toy", "side": 8, "seed": 3, "workers": 1, "units_in_memory": 1}
    next(open_source(values, Path(sys.argv[1])).samples(Lane(seed=0, lane=0, lanes=1)))
    (child,) = multiprocessing.active_children()
    print(child.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.usefixtures("toy_frames")
def test_processes_that_render_end_with_a_killed_trainer(tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    done = run_python(str(script), str(tmp_path), cwd=tmp_path, environment={"PYTHONPATH": str(tmp_path / "site")})
    assert done.returncode == -signal.SIGKILL
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int(done.stdout)).wait(timeout=20)  # it would wait for work for ever


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "shard"}, "Did you mean 'shards'"),
        ({"kind": "shards", "pth": "x"}, "Did you mean 'path'"),
        ({"kind": "shards"}, "images.path must be given"),
        ({"kind": "shards", "path": "{tmp}"}, "holds no shards"),
        ({"kind": "shards", "path": "{tmp}/missing.tar"}, "There is no shard"),
        ({"kind": "live", "generator": "no such"}, "Unknown generator of frames 'no such'"),
        ({"kind": "lerobot", "path": "{tmp}"}, "is not a LeRobotDataset"),
        ({"kind": "mixture", "sources": []}, "needs sources"),
        ({"kind": "mixture", "sources": [{"kind": "live", "generator": "toy"}]}, "needs a weight"),
        ({"kind": "shards", "path": "{tmp}", "curation": {"min_entropi": 1}}, "Did you mean 'min_entropy'"),
    ],
)
def test_sources_that_cannot_be_opened_are_refused(values: dict, message: str, tmp_path: Path) -> None:
    filled = {
        key: value.replace("{tmp}", str(tmp_path)) if isinstance(value, str) else value for key, value in values.items()
    }
    with pytest.raises(UserError, match=message):
        open_source(filled, tmp_path)


def test_shards_without_images_or_only_damaged_ones_end_the_run(tmp_path: Path) -> None:
    write_shard(tmp_path / "texts" / "a.tar", {"a.txt": b"text"})
    with pytest.raises(UserError, match="holds no images"):
        first_samples(ShardStream(str(tmp_path / "texts")), 1)
    write_shard(tmp_path / "broken" / "a.tar", {"a.jpg": b"nonsense", "b.jpg": b""})
    with pytest.raises(UserError, match="None of the 2 images"):
        first_samples(ShardStream(str(tmp_path / "broken")), 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.tar").touch()
    with pytest.raises(UserError, match=r"a\.tar"):
        first_samples(ShardStream(str(tmp_path / "empty")), 1)


def test_lanes_that_do_not_fit_are_refused(shards: Path) -> None:
    source = ShardStream(str(shards))
    with pytest.raises(UserError, match="2 lanes cannot be shared by 4 processes"):
        next(training_batches(CONFIG, source, 0, 1, 0, 4))
    with pytest.raises(UserError, match="cannot be shared by 3 processes"):
        next(training_batches(CONFIG, source, 0, 1, 0, 3))
    with pytest.raises(UserError, match="5 parts to share out to 6 lanes"):
        source.check(6)
    with pytest.raises(UserError, match="no state of the images for step 3"):
        next(training_batches(CONFIG, source, 3, 4))
