"""Videos of LeRobotDatasets: their colours, where they lie and how long they are, to importing and to pretraining."""

import io
import json
from typing import Any

import numpy as np
import pytest
from plain_lerobot import (
    FRONT,
    PlainDataset,
    greys,
    with_video,
)
from rich.console import Console
from tagged_video import BT601, BT709, FULL, LIMITED

from pixio_robot.common.errors import UserError
from pixio_robot.demos.formats.lerobot import import_lerobot
from pixio_robot.pretraining.sources.lerobot_frames import LeRobotStream
from pixio_robot.pretraining.sources.stream import Lane


@pytest.mark.parametrize("tags", [(), (BT709, LIMITED), (BT709, FULL), (BT601, FULL)])
def test_video_has_the_colours_that_were_recorded(tmp_path, tags):
    colour = np.array([200, 50, 100])
    frames = [np.full((64, 64, 3), colour, np.uint8)] * 6 + greys(6)
    root = with_video(PlainDataset(), tmp_path / "dataset", frames, *tags)
    store = import_lerobot(root, tmp_path / "store.zarr", console=Console(file=io.StringIO()))
    seen = store.read(FRONT, 0, 12).astype(int)
    assert np.abs(seen[0] - colour).max() <= 4
    assert np.abs(seen[6:] - np.stack(greys(6))).max() <= 4  # each frame in its place
    stream = LeRobotStream(str(root), every=1)
    np.testing.assert_array_equal(contents_of(stream)[f"{FRONT} episode 0 frame 0"], store.read(FRONT, 0, 1)[0])


@pytest.mark.parametrize("template", ["../other/{video_key}.mp4", "{outside}/other/{video_key}.mp4"])
def test_a_video_outside_of_a_dataset_is_not_read(tmp_path, template):
    root = with_video(PlainDataset(), tmp_path / "dataset", greys(12))
    (tmp_path / "other").mkdir()
    (root / f"videos/{FRONT}/chunk-000/file-000.mp4").rename(tmp_path / "other" / f"{FRONT}.mp4")
    info = json.loads((root / "meta/info.json").read_text())
    info["video_path"] = template.replace("{outside}", str(tmp_path))
    (root / "meta/info.json").write_text(json.dumps(info))
    for read in (lambda: import_lerobot(root, tmp_path / "store.zarr"), lambda: LeRobotStream(str(root))):
        with pytest.raises(UserError, match="other/.*mp4 is outside of it, where nothing is read"):
            read()
    assert not (tmp_path / "store.zarr").exists()


def contents_of(stream: LeRobotStream) -> dict[str, Any]:
    read = stream.read(stream.lane_units(0, Lane(0, 0, 1)), np.random.default_rng(0))
    return {item.name: item.content for item in read.items}


def test_a_video_shorter_than_its_table_is_named(tmp_path):
    root = with_video(PlainDataset(), tmp_path / "dataset", greys(10))
    with pytest.raises(
        UserError, match=r"file-000\.mp4: observation\.images\.front of episode 2, step 3, cannot be read"
    ):
        import_lerobot(root, tmp_path / "store.zarr", console=Console(file=io.StringIO()))
    stream = LeRobotStream(str(root), every=1)
    damaged = {name for name, content in contents_of(stream).items() if isinstance(content, Exception)}
    assert damaged == {f"{FRONT} episode 2 frame {step}" for step in (3, 4)}
