"""Decoded images: what is read, what is skipped, and when a cache is made anew."""

import io
import logging
import os
import shutil
import tarfile
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tar_shards import jpeg, write_shard, write_shards

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore, Feature
from pixio_robot.pretraining.sources import ImageCache, Lane, cache, demo_images, folder_images, open_source
from pixio_robot.pretraining.sources.cache import shard_images
from pixio_robot.pretraining.sources.shards import ShardStream


def test_folders_are_read_recursively_and_damaged_files_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "photos"
    (folder / "inner" / ".thumbnails").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    Image.fromarray(pixels).convert("L").save(folder / "inner" / "b.JPG")
    Image.fromarray(pixels).save(folder / "inner" / "c.webp", lossless=True)
    Image.fromarray(pixels).save(folder / "inner" / ".thumbnails" / "c.png")
    (folder / "notes.txt").write_text("no image")
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:100])
    (folder / "inner" / "empty.jpg").touch()
    with caplog.at_level(logging.WARNING):
        cache = folder_images(folder, tmp_path / "cache", 8)
    assert len(cache) == 3
    assert cache.names([2, 0]) == ["inner/c.webp", "a.png"]
    assert torch.equal(cache[0], torch.from_numpy(pixels))
    assert torch.equal(cache.read([2, 0])[0], torch.from_numpy(pixels))
    assert cache.skipped == ["cut.png", "inner/empty.jpg"]
    assert "cut.png" in caplog.text
    assert "2 of 5 images" in caplog.text


def test_images_are_squashed_upright_and_remember_their_shape(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    wide = Image.new("RGB", (60, 20), (255, 0, 0))
    wide.paste((0, 0, 255), (30, 0, 60, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90° clockwise to view
    wide.save(folder / "a.png")
    wide.save(folder / "b.jpg", exif=exif, quality=95)
    cache = folder_images(folder, tmp_path / "cache", 10)
    assert cache.aspect_N.tolist() == pytest.approx([3.0, 1 / 3])
    assert cache[0].shape == (10, 10, 3)
    assert cache[0][5, 1].tolist() == [255, 0, 0]
    assert cache[0][5, 8].tolist() == [0, 0, 255]
    assert cache[1][1, 5, 0] > 240
    assert cache[1][8, 5, 2] > 240


def test_a_cache_is_reused_until_the_images_change(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(image_folder, tmp_path / "photos")
    first = folder_images(folder, tmp_path / "cache", 16)
    decoded = []
    original = cache._decode
    monkeypatch.setattr(cache, "_decode", lambda *args: decoded.append(args) or original(*args))
    assert folder_images(folder, tmp_path / "cache", 16).fingerprint == first.fingerprint
    assert not decoded
    shutil.copy(folder / "000.png", folder / "more.png")
    changed = folder_images(folder, tmp_path / "cache", 16)
    assert changed.fingerprint != first.fingerprint
    assert len(changed) == len(first) + 1
    assert folder_images(folder, tmp_path / "cache", 8).side == 8
    assert not list((tmp_path / "cache").glob(".*"))


def test_a_damaged_cache_is_made_again_aloud(
    image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = folder_images(image_folder, tmp_path / "cache", 16)[0].clone()
    (pixels,) = tmp_path.glob("cache/*/pixels.uint8")
    with pixels.open("r+b") as file:
        file.write(bytes([int(whole[0, 0, 0]) ^ 1]))
    assert torch.equal(folder_images(image_folder, tmp_path / "cache", 16)[0], whole)
    assert "is made again: pixels.uint8 is damaged" in caplog.text


def test_folders_without_readable_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no folder"):
        folder_images(tmp_path / "nowhere", tmp_path / "cache", 8)
    with pytest.raises(UserError, match="holds no images"):
        folder_images(tmp_path, tmp_path / "cache", 8)
    (tmp_path / "broken.jpg").write_text("no image")
    with pytest.raises(UserError, match="None of the 1 images could be decoded"):
        folder_images(tmp_path, tmp_path / "cache", 8)


def test_too_little_disk_space_is_refused_before_decoding(image_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="free some space"):
        folder_images(image_folder, tmp_path / "cache", 10_000_000)


def test_shards_are_decoded_once_on_demand(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shards = write_shards(tmp_path / "shards", 2, 3)
    write_shard(shards / "shard-002.tar", {"a.jpg": b"damaged", "b.jpg": jpeg(7)})
    write_shard(shards / "shard-003.tar", {"a.jpg": jpeg(8), "b.jpg": jpeg(9)})
    with tarfile.open(shards / "shard-003.tar") as archive:
        second = archive.getmembers()[1].offset_data
    os.truncate(shards / "shard-003.tar", second + 100)
    write_shard(shards / ".partial-shard-004.tar", {"a.jpg": jpeg(10)})  # as render_scenes.py has it while it renders
    settings = {"kind": "shards", "path": str(shards), "side": 16, "decode_once": True}
    with caplog.at_level(logging.WARNING):
        decoded = open_source(settings, tmp_path / "cache")
    assert isinstance(decoded, ImageCache)
    streamed = open_source(settings | {"decode_once": False, "shards_in_memory": 4}, tmp_path / "cache")
    assert not isinstance(streamed, ImageCache)
    samples = list(islice(streamed.samples(Lane(seed=0, lane=0, lanes=1)), len(decoded)))
    assert sorted(decoded.names(range(len(decoded)))) == sorted(sample.name for sample in samples)
    assert decoded.names([0, 6]) == ["shard-000.tar/00000.jpg", "shard-002.tar/b.jpg"]
    assert decoded.aspect_N.tolist() == pytest.approx([20 / 16] * len(decoded))
    with Image.open(io.BytesIO(jpeg(0))) as image:
        expected = np.array(image.resize((16, 16), Image.Resampling.BICUBIC, reducing_gap=3.0))
    assert torch.equal(decoded[0], torch.from_numpy(expected))
    assert decoded.skipped[0] == "shard-002.tar/a.jpg"
    assert "rest of" in decoded.skipped[-1]
    again = open_source(settings, tmp_path / "cache")
    assert isinstance(again, ImageCache) and again.fingerprint == decoded.fingerprint
    assert [folder.name for folder in (tmp_path / "cache").iterdir()] == [decoded.fingerprint]


def test_what_cannot_be_decoded_once_is_refused(tmp_path: Path) -> None:
    settings = {"kind": "shards", "path": "https://example.org/s-{000..001}.tar", "side": 16, "decode_once": True}
    with pytest.raises(UserError, match=r"not https://example\.org/s-000\.tar: leave images\.decode_once out"):
        open_source(settings, tmp_path)
    shards = write_shards(tmp_path / "shards", 1, 2)
    with pytest.raises(UserError, match="draws images anew in every epoch"):
        open_source(settings | {"path": str(shards), "curation": {"min_side": 8}}, tmp_path)
    write_shard(tmp_path / "empty" / "a.tar", {"a.txt": b"no image"})
    with pytest.raises(UserError, match="empty holds no images"):
        open_source(settings | {"path": str(tmp_path / "empty")}, tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> DemoStore:
    features = {
        "observation.images.front": Feature((16, 16, 3), "uint8"),
        "observation.images.wrist": Feature((16, 32, 3), "uint8"),
        "action": Feature((2,), "float32"),
    }
    store = DemoStore.create(tmp_path / "demos.zarr", features, {"fps": 20})
    random = np.random.default_rng(0)
    for steps in (3, 4):
        frames = {
            key: random.integers(0, 256, (steps, *feature.shape)).astype(feature.dtype)
            for key, feature in features.items()
        }
        store.append_episode(frames, seed=None, success=None, task="test")
    return store


def test_all_frames_of_a_demo_store_or_one_camera(store: DemoStore, tmp_path: Path) -> None:
    everything = demo_images(store.path, tmp_path / "cache", 16)
    assert len(everything) == 14
    frames = store.read("observation.images.front", 0, 7)
    assert torch.equal(everything.read(range(7)), torch.from_numpy(frames))
    assert everything.aspect_N[7:].tolist() == [2.0] * 7
    one = demo_images(store.path, tmp_path / "cache", 16, ["observation.images.front"])
    assert len(one) == 7
    assert one.fingerprint != everything.fingerprint


def test_an_unknown_camera_is_answered_with_the_nearest(store: DemoStore, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Did you mean 'observation\.images\.front'"):
        demo_images(store.path, tmp_path / "cache", 16, ["observation.images.frond"])


def test_a_store_without_frames_is_refused(tmp_path: Path) -> None:
    DemoStore.create(tmp_path / "demos.zarr", {"action": Feature((2,), "float32")}, {"fps": 20})
    with pytest.raises(UserError, match="no camera frames"):
        demo_images(tmp_path / "demos.zarr", tmp_path / "cache", 16)


def save(file: Path, grey: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (grey, grey, grey)).save(file)


def test_linked_folders_are_entered_and_what_is_no_image_is_said(tmp_path, caplog):
    real, root = tmp_path / "real", tmp_path / "linked"
    for kind in "ab":
        save(real / kind / "0.png", 20)
    root.mkdir()
    for kind in "ab":
        (root / kind).symlink_to(real / kind)
    (real / "b/back").symlink_to(root)  # leads round in a circle
    (root / "away.png").symlink_to(tmp_path / "nowhere.png")
    (root / "labels.json").write_text("{}")
    cache = folder_images(root, tmp_path / "cache", 16)
    assert cache.names(range(len(cache))) == ["a/0.png", "b/0.png"]
    assert "left out, since they are no images: 1 broken links, 1 *.json" in caplog.text


def test_names_that_are_no_utf8(tmp_path):
    save(tmp_path / "images/0.png", 20)
    with open(os.fsencode(tmp_path / "images") + b"/caf\xe9.png", "wb") as file:  # noqa: PTH123 (pathlib takes no bytes)
        Image.new("RGB", (8, 8), "red").save(file, "PNG")
    with open(os.fsencode(tmp_path / "images") + b"/dam\xe9.png", "wb") as file:  # noqa: PTH123
        file.write(b"")
    cache = folder_images(tmp_path / "images", tmp_path / "cache", 16)
    assert [os.fsencode(name) for name in cache.names([0, 1])] == [b"0.png", b"caf\xe9.png"]
    assert len(cache.skipped) == 1


@pytest.mark.parametrize("suffix", [".tar.gz", ".tgz"])
def test_compressed_shards(tmp_path, suffix):
    save(tmp_path / "images/0.png", 20)
    folder = tmp_path / "shards"
    folder.mkdir()
    with tarfile.open(folder / f"s-000{suffix}", "w:gz") as archive:
        (tmp_path / "note").write_bytes(b"\0\5\26\7")
        archive.add(tmp_path / "note", "./._0.png")  # as macOS has it
        archive.add(tmp_path / "images/0.png", "0.png")
    cache = shard_images(str(folder), tmp_path / "cache", 16)
    assert (cache.names([0]), cache.skipped) == ([f"s-000{suffix}/0.png"], [])
    assert len(ShardStream(str(folder)).preview(3)) == 1
    content = (folder / f"s-000{suffix}").read_bytes()
    (folder / f"s-000{suffix}").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="could be decoded|holds no images"):
        shard_images(str(folder), tmp_path / "other", 16)


def test_a_folder_without_shards_lists_what_is_there(tmp_path):
    (tmp_path / "train.zip").touch()
    with pytest.raises(UserError, match=r"holds no shards \(\.tar, \.tar\.gz, \.tgz\), only train\.zip"):
        ShardStream(str(tmp_path))
