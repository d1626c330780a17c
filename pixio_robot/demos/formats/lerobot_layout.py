"""What is in a LeRobotDataset v3 in a local folder, and where, without LeRobot; whoever reads one begins here.

Layout (LeRobot 0.6): `meta/info.json` has features and path templates, `meta/tasks.parquet` the tasks in words,
`meta/episodes/*/*.parquet` says in which file, and in which seconds of it, every camera has every episode, and
`data/*/*.parquet` has a row for every step. Nothing is taken for granted about the rows' order: an episode's are found by
`episode_index` and `frame_index`, and all that the metadata say of them is checked.

Letters of shape suffixes: T steps.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from pixio_robot.common.errors import UserError
from pixio_robot.demos.formats.clock import clock_fault
from pixio_robot.demos.formats.transfer import explains_unreadable
from pixio_robot.demos.store.layout import INTERVENTION

SUCCESS = "next.success"
_ALWAYS_THERE = {"timestamp", "frame_index", "episode_index", "index", "task_index"}
_MOST_HZ = 100_000
_NUMBERS = ("float", "int", "uint", "bool")


@dataclass(frozen=True)
class Stretch:
    """Where a video has an episode.

    Attributes:
        file: Path of the video.
        seconds: Where in it the episode begins.
    """

    file: Path
    seconds: float


@dataclass(frozen=True)
class LeRobotEpisode:
    """Where an episode is.

    Attributes:
        number: Its `episode_index`.
        file: The data file with its rows.
        rows_T: Their places in the file, in the order of steps.
        tasks: First step of each task, and the task in words; more than one where it changes in the middle.
        videos: By camera.
    """

    number: int
    file: Path
    rows_T: np.ndarray
    tasks: list[tuple[int, str]]
    videos: dict[str, Stretch]


@dataclass(frozen=True)
class LeRobotLayout:
    """What is in a dataset.

    Attributes:
        root: Its folder.
        fps: Hz.
        features: As `meta/info.json` describes them.
        cameras: Keys of the colour cameras.
        values: Keys of state, action and other numbers that are observed.
        episodes: In the order of `meta/episodes`.
        robot_type: What LeRobot calls the robot, if it says so.
        given_up: What of it is not read, in words.
    """

    root: Path
    fps: float
    features: dict[str, dict[str, Any]]
    cameras: list[str]
    values: list[str]
    episodes: list[LeRobotEpisode]
    robot_type: str | None = None
    given_up: list[str] = field(default_factory=list)

    def is_video(self, camera: str) -> bool:
        """Return whether frames of a camera are in videos, not in data files."""
        return self.features[camera]["dtype"] == "video"


def open_layout(root: Path) -> LeRobotLayout:
    """Look through a dataset: metadata, and the columns that say which row is which step.

    Raises:
        UserError: It is none in version v3, incomplete, or its metadata and rows disagree.
    """
    info = _info(root)
    features, fps = _features(root, info), _rate(root, info)
    cameras, values, given_up = _readable(features)
    if not cameras and not values:
        raise UserError(
            f"The LeRobotDataset {root} has neither cameras nor numbers that are observed: give another one."
        )
    listed = _listed_episodes(root, info)
    tasks = _tasks(root)
    _check_video_rates(root, features, cameras, fps)
    found = {}
    for file in sorted((root / "data").glob("*/*.parquet")):
        for number, rows_T, columns in _rows_of(root, file):
            if number not in listed:
                given_up.append(f"episode {number}, which meta/episodes does not list")
            elif number in found:
                raise _disagree(root, file, f"it has rows of episode {number}, as {found[number].file.name} has")
            else:
                row = listed[number]
                _check_steps(root, file, number, row, columns, fps)
                of_tasks = _tasks_of(root, file, number, columns["task_index"], tasks)
                videos = {key: _stretch(root, info, row, key) for key in cameras if features[key]["dtype"] == "video"}
                found[number] = LeRobotEpisode(number, file, rows_T, of_tasks, videos)
    for number, row in listed.items():
        if number not in found:
            places = {part: row.get(f"data/{part}") or 0 for part in ("chunk_index", "file_index")}
            with explains_unreadable(root, "data_path in meta/info.json"):
                file = info["data_path"].format(**places)
            is_there = (root / file).is_file()
            reason = f"no file of data/ has a row of episode {number}" if is_there else f"{file} is missing"
            raise UserError(f"The LeRobotDataset {root} is incomplete: {reason}; fetch it anew.")
    episodes = [found[number] for number in listed]
    if list(listed) != list(range(len(listed))):
        given_up.append(f"the numbers of episodes, which go from {min(listed)} to {max(listed)} with gaps")
    robot_type = info.get("robot_type")
    robot_type = robot_type if isinstance(robot_type, str) else None
    return LeRobotLayout(root, fps, features, cameras, values, episodes, robot_type, given_up)


def _disagree(root: Path, file: Path, what: str) -> UserError:
    return UserError(
        f"The LeRobotDataset {root} contradicts itself: in {file.relative_to(root).as_posix()}, {what}; fetch it anew, or "
        "correct it with lerobot-edit-dataset."
    )


def _info(root: Path) -> dict[str, Any]:
    try:
        info = json.loads((root / "meta/info.json").read_bytes())
        version = str(info["codebase_version"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{root} is not a LeRobotDataset: it has no readable meta/info.json; give the folder of one in version v3.0."
        ) from None
    if not version.startswith("v3."):
        raise UserError(
            f"{root} is a LeRobotDataset {version}, but v3.0 is needed: convert it with "
            "python -m lerobot.scripts.convert_dataset_v21_to_v30."
        )
    for name in ("data_path", "video_path"):
        if not isinstance(info.get(name), str | None) or (name == "data_path" and not info.get(name)):
            raise UserError(f"meta/info.json of the LeRobotDataset {root} has no {name}: fetch it anew.")
    return info


def _features(root: Path, info: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
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


def _rate(root: Path, info: Mapping[str, Any]) -> float:
    fps = info.get("fps")
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps < _MOST_HZ:
        raise UserError(
            f"meta/info.json of the LeRobotDataset {root} gives its fps as {fps!r}: write its rate in Hz there."
        )
    return int(fps) if fps == int(fps) else fps


def _readable(features: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[str], list[str]]:
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
        elif key not in _ALWAYS_THERE | {SUCCESS}:
            given_up.append(key)
    return cameras, values, given_up


def _is_depth(key: str, feature: Mapping[str, Any]) -> bool:
    marked = any(_about(feature).get(name) for name in ("is_depth_map", "video.is_depth_map"))
    return bool(marked) or ("depth" in key.lower() and 1 in feature["shape"][:1] + feature["shape"][-1:])


def _about(feature: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what is noted of a camera's videos."""
    info = feature.get("info") or feature.get("video_info")
    return info if isinstance(info, Mapping) else {}


def _listed_episodes(root: Path, info: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """Return the rows of `meta/episodes` by `episode_index`."""
    listed: dict[int, dict[str, Any]] = {}
    for file in sorted((root / "meta/episodes").glob("*/*.parquet")):
        with explains_unreadable(root, file.relative_to(root).as_posix()):
            names = [name for name in pyarrow.parquet.read_schema(file).names if not name.startswith("stats/")]
            rows = pyarrow.parquet.read_table(file, columns=names).to_pylist()
        for place, row in enumerate(rows):
            for name in ("episode_index", "length"):
                if type(row.get(name)) is not int or row[name] < (name == "length"):
                    raise _disagree(root, file, f"row {place} has the {name} {row.get(name)!r}")
            if row["episode_index"] in listed:
                raise _disagree(root, file, f"episode {row['episode_index']} comes twice")
            listed[row["episode_index"]] = row
    if not listed or not (root / "meta/tasks.parquet").exists():
        raise UserError(f"The LeRobotDataset {root} is incomplete or empty: meta/ lacks tasks or episodes; fetch it.")
    totals = {"total_episodes": len(listed), "total_frames": sum(row["length"] for row in listed.values())}
    for name, number in totals.items():
        if info.get(name, number) != number:
            raise UserError(
                f"The LeRobotDataset {root} contradicts itself: meta/info.json says {name} {info[name]!r}, but meta/episodes "
                f"lists {number}; fetch what is missing, or write {number} there."
            )
    return listed


def _tasks(root: Path) -> dict[int, str]:
    """Return the tasks in words by `task_index`; LeRobot has the words as the index of the table, others as a column."""
    with explains_unreadable(root, "meta/tasks.parquet"):
        table = pyarrow.parquet.read_table(root / "meta/tasks.parquet")
    words = [name for name, kind in zip(table.schema.names, table.schema.types) if pyarrow.types.is_string(kind)]
    words += [name for name, kind in zip(table.schema.names, table.schema.types) if pyarrow.types.is_large_string(kind)]
    words.sort(key=lambda name: name not in ("task", "__index_level_0__"))
    if "task_index" not in table.schema.names or not words:
        raise UserError(
            f"meta/tasks.parquet of the LeRobotDataset {root} has the columns {', '.join(table.schema.names) or 'none'}, but "
            "task_index and the tasks in words are needed: fetch it anew."
        )
    pairs = zip(table["task_index"].to_pylist(), table[words[0]].to_pylist())
    return {index: task for index, task in pairs if task is not None}


def _check_video_rates(root: Path, features: Mapping[str, Mapping[str, Any]], cameras: list[str], fps: float) -> None:
    for key in cameras:
        video_fps = _about(features[key]).get("video.fps") or fps
        if (
            not isinstance(video_fps, int | float) or abs(video_fps - fps) > 1
        ):  # LeRobot notes it cut to a whole number: 29 of 29.97
            raise UserError(
                f"The LeRobotDataset {root} has mixed frame rates: {key} has {video_fps} Hz and its data {fps} Hz; make one "
                "of a single rate of it."
            )


def _rows_of(root: Path, file: Path) -> Iterator[tuple[int, np.ndarray, dict[str, np.ndarray]]]:
    """Yield the number of each episode in a data file, its rows by step, and what they say of themselves."""
    name = file.relative_to(root).as_posix()
    wanted = ["episode_index", "frame_index", "timestamp", "task_index"]
    with explains_unreadable(root, name):
        there = pyarrow.parquet.read_schema(file).names
    for key in wanted:
        if key not in there:
            raise _disagree(root, file, f"the column {key} is missing")
    with explains_unreadable(root, name):
        table = pyarrow.parquet.read_table(file, columns=wanted)
        for key in wanted:
            if table[key].null_count:
                row = table[key].to_pylist().index(None)
                raise _disagree(root, file, f"{key} is empty in row {row}")
        columns = {key: table[key].to_numpy() for key in wanted}
        columns = {key: np.ravel(values).astype(np.float64) for key, values in columns.items()}
    order = np.lexsort((columns["frame_index"], columns["episode_index"]))
    numbers = columns["episode_index"][order]
    for rows_T in np.split(order, np.flatnonzero(np.diff(numbers)) + 1):
        if len(rows_T):
            yield int(columns["episode_index"][rows_T[0]]), rows_T, {key: col[rows_T] for key, col in columns.items()}


def _check_steps(
    root: Path, file: Path, number: int, row: Mapping[str, Any], columns: Mapping[str, np.ndarray], fps: float
) -> None:
    """Look that an episode has every step once, as many as the metadata say, each at its time."""
    frames_T = columns["frame_index"]
    odd = np.flatnonzero(frames_T != np.arange(len(frames_T)))
    if len(odd):
        step = int(odd[0])
        is_twice = step and frames_T[step] == frames_T[step - 1]
        what = f"comes twice (frame_index {frames_T[step]:g})" if is_twice else "is missing"
        raise _disagree(root, file, f"step {step - 1 if is_twice else step} of episode {number} {what}")
    if len(frames_T) != row["length"]:
        raise _disagree(
            root, file, f"episode {number} has {len(frames_T)} steps, but meta/episodes says {row['length']}"
        )
    fault = clock_fault(columns["timestamp"], fps, from_zero=True)
    if fault is not None:
        raise _disagree(root, file, f"timestamp of episode {number} {fault.sentence}")


def _tasks_of(
    root: Path, file: Path, number: int, indices_T: np.ndarray, tasks: Mapping[int, str]
) -> list[tuple[int, str]]:
    starts = np.concatenate([[0], np.flatnonzero(np.diff(indices_T)) + 1]).tolist()
    for step in starts:
        if int(indices_T[step]) not in tasks:
            raise _disagree(
                root,
                file,
                f"step {step} of episode {number} has the task_index {indices_T[step]:g}, which meta/tasks.parquet lacks",
            )
    return [(step, tasks[int(indices_T[step])]) for step in starts]


def _stretch(root: Path, info: Mapping[str, Any], row: Mapping[str, Any], key: str) -> Stretch:
    number = row["episode_index"]
    names = {part: f"videos/{key}/{part}" for part in ("chunk_index", "file_index", "from_timestamp")}
    for name in names.values():
        value = row.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(
                f"The LeRobotDataset {root} contradicts itself: meta/episodes gives {name} of episode {number} as "
                f"{value!r}; fetch it anew."
            )
    with explains_unreadable(root, "video_path in meta/info.json"):
        places = {part: row[name] for part, name in names.items()}
        file = root / (info.get("video_path") or "").format(video_key=key, **places)
    is_inside = Path(os.path.normpath(file)).is_relative_to(os.path.normpath(root))
    if not is_inside or not file.is_file():
        wrong = "is missing" if is_inside else "is outside of it, where nothing is read"
        place = os.path.relpath(file, root)
        raise UserError(f"The LeRobotDataset {root} is incomplete: {place} {wrong}; fetch it anew.")
    return Stretch(file, float(row[names["from_timestamp"]]))
