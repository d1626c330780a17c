"""What the metadata of a LeRobotDataset v3 say of it as a whole: rate, features, splits, tasks."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from pixio_robot.common.errors import UserError
from pixio_robot.demos.formats.transfer import explains_unreadable
from pixio_robot.demos.store.layout import INTERVENTION

SUCCESS = "next.success"
ALWAYS_THERE = {"timestamp", "frame_index", "episode_index", "index", "task_index"}
_MOST_HZ = 100_000
_NUMBERS = ("float", "int", "uint", "bool")


def read_info(root: Path) -> dict[str, Any]:
    """Read `meta/info.json`.

    Raises:
        UserError: There is none, or it is of another version, or does not say where episodes are.
    """
    try:
        info = json.loads((root / "meta/info.json").read_bytes())
        version = str(info["codebase_version"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{root} is not a LeRobotDataset: it has no readable meta/info.json; give the folder of one in version v3.0."
        ) from None
    if not version.lstrip("v").startswith("3."):
        raise UserError(
            f"{root} is a LeRobotDataset {version}, but v3.0 is needed: convert it with "
            "python -m lerobot.scripts.convert_dataset_v21_to_v30."
        )
    for name in ("data_path", "video_path"):
        if not isinstance(info.get(name), str | None) or (name == "data_path" and not info.get(name)):
            raise UserError(f"meta/info.json of the LeRobotDataset {root} has no {name}: fetch it anew.")
    return info


def features_in(root: Path, info: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return dtype, shape and more of every feature.

    Raises:
        UserError: One is described in another way.
    """
    features = info.get("features")
    if not isinstance(features, dict) or not features:
        raise UserError(f"meta/info.json of the LeRobotDataset {root} has no features: fetch it anew.")
    for key, feature in features.items():
        shape = feature.get("shape") if isinstance(feature, dict) else None
        is_whole = isinstance(shape, list) and all(type(side) is int and side > 0 for side in shape)
        if not isinstance(feature, dict) or not isinstance(feature.get("dtype"), str) or not is_whole:
            raise UserError(
                f"meta/info.json of the LeRobotDataset {root} describes {key} as {json.dumps(feature)[:200]}, which is no "
                "dtype with a shape of whole numbers: fetch it anew."
            )
    return features


def rate_in(root: Path, info: Mapping[str, Any]) -> float:
    """Return the rate in Hz.

    Raises:
        UserError: It is none.
    """
    fps = info.get("fps")
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps < _MOST_HZ:
        raise UserError(
            f"meta/info.json of the LeRobotDataset {root} gives its fps as {fps!r}: write its rate in Hz there."
        )
    return int(fps) if fps == int(fps) else fps


def readable(features: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[str], list[str]]:
    """Return the colour cameras, the arrays of numbers, and what is neither."""
    cameras, values, given_up = [], [], []
    for key, feature in features.items():
        if feature["dtype"] in ("video", "image"):
            if _is_depth(key, feature):
                given_up.append(f"{key}, which is depth")
            else:
                cameras.append(key)
        elif key in ("action", INTERVENTION) or key.startswith("observation."):
            if feature["dtype"].startswith(_NUMBERS):
                values.append(key)
            else:
                given_up.append(f"{key}, of dtype {feature['dtype']}")
        elif key not in ALWAYS_THERE | {SUCCESS}:
            given_up.append(key)
    return cameras, values, given_up


def _is_depth(key: str, feature: Mapping[str, Any]) -> bool:
    marked = any(about_videos(feature).get(name) for name in ("is_depth_map", "video.is_depth_map"))
    return bool(marked) or ("depth" in key.lower() and 1 in feature["shape"][:1] + feature["shape"][-1:])


def about_videos(feature: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what is noted of a camera's videos."""
    info = feature.get("info") or feature.get("video_info")
    return info if isinstance(info, Mapping) else {}


def splits_in(info: Mapping[str, Any], n_episodes: int) -> list[str]:
    """Say that episodes which are set apart are not: a store has no splits."""
    splits = info.get("splits")
    if not isinstance(splits, Mapping) or not splits:
        return []
    whole = [re.fullmatch(r"0:(\d+)", str(part)) for part in splits.values()]
    if len(whole) == 1 and whole[0] and int(whole[0][1]) >= n_episodes:
        return []
    return [f"the splits {', '.join(f'{name} ({part})' for name, part in splits.items())}: all episodes are there"]


def read_tasks(root: Path) -> dict[int, str]:
    """Return the tasks in words by `task_index`; LeRobot has the words as the index of the table, others as a column."""
    with explains_unreadable(root, "meta/tasks.parquet"):
        table = pyarrow.parquet.read_table(root / "meta/tasks.parquet")
    columns = {name: table[name].combine_chunks() for name in table.schema.names}
    columns = {name: col.dictionary_decode() if hasattr(col, "dictionary") else col for name, col in columns.items()}
    words = [name for name, column in columns.items() if _is_text(column.type)]
    words.sort(key=lambda name: name not in ("task", "__index_level_0__"))
    if "task_index" not in columns or not words:
        raise UserError(
            f"meta/tasks.parquet of the LeRobotDataset {root} has the columns {', '.join(columns) or 'none'}, but task_index "
            "and the tasks in words are needed: fetch it anew."
        )
    tasks: dict[int, str] = {}
    for index, task in zip(columns["task_index"].to_pylist(), columns[words[0]].to_pylist()):
        is_whole = index is None or (isinstance(index, int | float) and float(index).is_integer())
        if not is_whole or (index is not None and tasks.get(int(index), task) != task):
            wrong = f"two tasks of index {index}" if is_whole else f"task_index {index!r}"
            raise UserError(
                f"meta/tasks.parquet of the LeRobotDataset {root} has {wrong}, where every task should have a whole number of "
                "its own: fetch it anew."
            )
        if index is not None and task is not None:
            tasks[int(index)] = task
    return tasks


def _is_text(kind: pyarrow.DataType) -> bool:
    return pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind) or pyarrow.types.is_string_view(kind)
