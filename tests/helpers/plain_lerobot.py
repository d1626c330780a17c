"""A LeRobotDataset v3 with images as plain values, which a test alters before they are written."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

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
