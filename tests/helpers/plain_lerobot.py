"""A LeRobotDataset v3 with images, or a video, as plain values, which a test alters before they are written."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image
from rich.console import Console
from tagged_video import write_video

from pixio_robot.demos import DemoStore
from pixio_robot.demos.formats.lerobot import import_lerobot

FRONT, STATE = "observation.images.front", "observation.state"
LENGTHS = (4, 3, 5)
FPS = 10


def encoded(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def frame(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (8, 12, 3), np.uint8)


class PlainDataset:
    """The parts of a dataset."""

    def __init__(self, lengths: Sequence[int] = LENGTHS) -> None:
        count = sum(lengths)
        episodes = np.repeat(np.arange(len(lengths)), lengths).tolist()
        steps = np.concatenate([np.arange(length) for length in lengths]).tolist()
        self.features: dict[str, dict[str, Any]] = {
            FRONT: {"dtype": "image", "shape": [8, 12, 3], "names": ["height", "width", "channels"]},
            STATE: {"dtype": "float32", "shape": [2], "names": ["x", "y"]},
            "action": {"dtype": "float32", "shape": [3], "names": None},
        }
        self.columns: dict[str, list[Any]] = {
            FRONT: [{"bytes": encoded(frame(number)), "path": None} for number in range(count)],
            STATE: [[float(number), number / 2] for number in range(count)],
            "action": [[number + 0.5, -number, 1.0] for number in range(count)],
            "episode_index": episodes,
            "frame_index": steps,
            "timestamp": [step / FPS for step in steps],
            "index": list(range(count)),
            "task_index": [episode % 2 for episode in episodes],
        }
        self.episodes = [
            {"episode_index": number, "length": length, "data/chunk_index": 0, "data/file_index": 0}
            for number, length in enumerate(lengths)
        ]
        self.tasks: dict[str, list[Any]] = {"task_index": [0, 1], "__index_level_0__": ["reach", "lift"]}
        self.info: dict[str, Any] = {
            "codebase_version": "v3.0",
            "fps": FPS,
            "total_episodes": len(lengths),
            "total_frames": count,
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": None,
        }

    def reorder(self, rows: list[int]) -> None:
        self.columns = {key: [values[row] for row in rows] for key, values in self.columns.items()}

    def write(self, root: Path) -> Path:
        for folder in ("meta/episodes/chunk-000", "data/chunk-000"):
            (root / folder).mkdir(parents=True)
        (root / "meta/info.json").write_text(json.dumps(self.info | {"features": self.features}))
        pyarrow.parquet.write_table(pyarrow.table(self.tasks), root / "meta/tasks.parquet")
        table = pyarrow.Table.from_pylist(self.episodes)
        pyarrow.parquet.write_table(table, root / "meta/episodes/chunk-000/file-000.parquet")
        pyarrow.parquet.write_table(pyarrow.table(self.columns), root / "data/chunk-000/file-000.parquet")
        return root


def with_video(dataset: PlainDataset, root: Path, frames: list[np.ndarray], *tags: int) -> Path:
    """Keep the camera in one video."""
    dataset.features[FRONT] = {"dtype": "video", "shape": list(frames[0].shape), "names": None}
    dataset.info["video_path"] = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    del dataset.columns[FRONT]
    start = 0
    for episode in dataset.episodes:
        place = {"chunk_index": 0, "file_index": 0, "from_timestamp": start / FPS}
        episode |= {f"videos/{FRONT}/{name}": value for name, value in place.items()}
        start += episode["length"]
    dataset.write(root)
    file = root / f"videos/{FRONT}/chunk-000/file-000.mp4"
    file.parent.mkdir(parents=True)
    write_video(file, "libx264", "yuv420p", *(tags or (None, None)), frames)
    return root


def greys(count: int) -> list[np.ndarray]:
    return [np.full((64, 64, 3), 20 * number, np.uint8) for number in range(count)]


def imported(dataset: PlainDataset, folder: Path) -> tuple[DemoStore, str]:
    said = io.StringIO()
    root = dataset.write(folder / "dataset")
    store = import_lerobot(root, folder / "store.zarr", console=Console(file=said, width=10_000))
    return store, said.getvalue()


def assert_whole(store: DemoStore) -> None:
    """Check that every number and pixel is where it belongs."""
    count = sum(LENGTHS)
    assert store.episode_ends.tolist() == np.cumsum(LENGTHS).tolist()
    assert store.read(STATE, 0, count).tolist() == [[number, number / 2] for number in range(count)]
    assert store.read("action", 0, count).tolist() == [[number + 0.5, -number, 1] for number in range(count)]
    np.testing.assert_array_equal(store.read(FRONT, 0, count), [frame(number) for number in range(count)])
    assert store.episode_tasks == ["reach", "lift", "reach"]
