"""What is in a LeRobotDataset v3 in a local folder, and where, without LeRobot; whoever reads one begins here.

Layout (LeRobot 0.6): `meta/info.json` has features and path templates, `meta/tasks.parquet` the tasks in words,
`meta/episodes/*/*.parquet` says in which file, and in which seconds of it, every camera has every episode, and
`data/*/*.parquet` has a row for every step. Nothing is taken for granted about the rows' order: an episode's are found by
`episode_index` and `frame_index`, and all that the metadata say of them is checked.

Letters of shape suffixes: T steps.
"""

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
from pixio_robot.demos.clock import clock_fault
from pixio_robot.demos.formats.lerobot_info import (
    ALWAYS_THERE,
    about_videos,
    features_in,
    rate_in,
    read_info,
    read_tasks,
    readable,
    splits_in,
)
from pixio_robot.demos.formats.transfer import explains_unreadable


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
    info = read_info(root)
    features, fps = features_in(root, info), rate_in(root, info)
    cameras, values, given_up = readable(features)
    if not cameras and not values:
        raise UserError(
            f"The LeRobotDataset {root} has neither cameras nor numbers that are observed: give another one."
        )
    listed = _listed_episodes(root, info)
    tasks = read_tasks(root)
    _check_video_rates(root, features, cameras, fps)
    found = {}
    files = _tables(root / "data")
    given_up += _undescribed(root, files[:1], features)
    for file in files:
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
    given_up += splits_in(info, len(listed))
    robot_type = info.get("robot_type")
    robot_type = robot_type if isinstance(robot_type, str) else None
    return LeRobotLayout(root, fps, features, cameras, values, episodes, robot_type, given_up)


def _undescribed(root: Path, files: list[Path], features: Mapping[str, Any]) -> list[str]:
    """Say which columns the metadata do not describe."""
    there: list[str] = []
    for file in files:
        with explains_unreadable(root, file.relative_to(root).as_posix()):
            there += pyarrow.parquet.read_schema(file).names
    unknown = [name for name in there if name not in features and name not in ALWAYS_THERE]
    return [f"the columns {', '.join(unknown)}, which meta/info.json does not describe"] if unknown else []


def _tables(folder: Path) -> list[Path]:
    """Return the tables in the folders of a folder; what begins with a dot is a system's note about another file."""
    return [file for file in sorted(folder.glob("*/*.parquet")) if not file.name.startswith(".")]


def _disagree(root: Path, file: Path, what: str) -> UserError:
    return UserError(
        f"The LeRobotDataset {root} contradicts itself: in {file.relative_to(root).as_posix()}, {what}; fetch it anew, or "
        "correct it with lerobot-edit-dataset."
    )


def _listed_episodes(root: Path, info: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """Return the rows of `meta/episodes` by `episode_index`."""
    listed: dict[int, dict[str, Any]] = {}
    for file in _tables(root / "meta/episodes"):
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


def _check_video_rates(root: Path, features: Mapping[str, Mapping[str, Any]], cameras: list[str], fps: float) -> None:
    for key in cameras:
        video_fps = about_videos(features[key]).get("video.fps") or fps
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
    for key in ("episode_index", "frame_index", "task_index"):
        odd = np.flatnonzero(~np.isfinite(columns[key]) | (columns[key] != np.rint(columns[key])))
        if len(odd):
            raise _disagree(root, file, f"{key} is {columns[key][odd[0]]:g} in row {odd[0]}, which is no whole number")
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
