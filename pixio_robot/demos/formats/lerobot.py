"""Converts between a demonstration store and a LeRobotDataset v3 in a local folder, without the network."""

import contextlib
import hashlib
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from av.logging import ERROR, set_libav_level
from lerobot.datasets import LeRobotDataset
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.common.progress import progress_bar
from pixio_robot.demos.formats.lerobot_episodes import EpisodeReader
from pixio_robot.demos.formats.lerobot_info import SUCCESS
from pixio_robot.demos.formats.lerobot_layout import LeRobotLayout, open_layout
from pixio_robot.demos.formats.transfer import Episode, Record, check_not_empty, new_result, say_given_up, write_store
from pixio_robot.demos.store.codecs import LOSSLESS
from pixio_robot.demos.store.layout import INTERVENTION
from pixio_robot.demos.store.store import DemoStore

_LEAST_VIDEO_WIDTH = 28  # SVT-AV1 ends the process at 24 px
# What LeRobot's format has no place for.
_EXTRA_FILE = Path("meta/pixio_robot.json")


def export_lerobot(
    store: DemoStore,
    root: str | Path,
    repo_id: str,
    *,
    use_videos: bool = True,
    console: Console | None = None,
) -> None:
    """Write a store as a LeRobotDataset v3.

    Success becomes LeRobot's ``next.success``, true on the last step of a successful episode, if it is known
    of every episode. Seeds, success and attributes go to ``meta/pixio_robot.json``, which LeRobot ignores and
    `import_lerobot` reads.

    Args:
        store: What to write.
        root: Folder to make; complete or not there.
        repo_id: LeRobot's name of the dataset, ``<user>/<name>``.
        use_videos: Whether frames are compressed as video, small and lossy, or as lossless images.
        console: Where to show progress: standard error by default.

    Raises:
        UserError: There is something at `root`, the store is empty or damaged, its frames are too small for videos, or the
            disk is full.
    """
    check_not_empty(store)
    console = console or Console(stderr=True)
    if use_videos and store.image_keys:
        _check_encodable(store)
        say_given_up(["frames, which video keeps with small losses (use_videos=false keeps them as they are)"], console)
    with new_result(Path(root)) as unfinished:
        _write_dataset(store, unfinished, repo_id, use_videos, console)


def import_lerobot(
    root: str | Path,
    store_path: str | Path,
    *,
    image_size: int | None = None,
    codec: str = LOSSLESS,
    console: Console | None = None,
) -> DemoStore:
    """Decode a LeRobotDataset v3 into a store: cameras, ``observation.*`` and ``action``; depth is left out.

    Args:
        root: Folder of the dataset.
        store_path: Folder to make; complete or not there.
        image_size: Height and width to resize frames to, in pixels; None keeps theirs.
        codec: How frames are kept, see `DemoStore.create`.
        console: Where to show progress: standard error by default.

    Raises:
        UserError: `root` is no complete LeRobotDataset v3, there is something at `store_path`, or the disk is
            full.
    """
    root, store_path = Path(root), Path(store_path)
    layout = open_layout(root)
    reader = EpisodeReader(layout, image_size)
    record = Record.read(root / _EXTRA_FILE, len(layout.episodes))
    attributes = _attributes(layout, record) | {
        "fps": layout.fps,
        "source": f"LeRobotDataset {root.name}",
        "source_fingerprint": dataset_fingerprint(root),
    }
    return write_store(
        store_path,
        reader.features,
        attributes,
        reader.episodes(record),
        sum(len(episode.tasks) for episode in layout.episodes),
        codec,
        console,
        given_up=_given_up(layout, reader),
    )


def read_lerobot_numbers(root: Path) -> tuple[list[Episode], float, dict[str, Any]]:
    """Read the episodes of a LeRobotDataset v3 as `import_lerobot` does, without their frames.

    Returns:
        The episodes, steps per second, and what else is known of them, the attribute ``names`` among it.

    Raises:
        UserError: `root` is no complete LeRobotDataset v3.
    """
    layout = replace(open_layout(root), cameras=[])
    record = Record.read(root / _EXTRA_FILE, len(layout.episodes))
    return list(EpisodeReader(layout, None).episodes(record)), layout.fps, _attributes(layout, record)


def _attributes(layout: LeRobotLayout, record: Record) -> dict[str, Any]:
    """Return what a dataset says of itself as the attributes of a store."""
    names = {key: flat for key, feature in layout.features.items() if (flat := _flat_names(key, feature))}
    robot = {"robot_type": layout.robot_type} if layout.robot_type else {}
    return {"names": names} | robot | record.attributes


def _given_up(layout: LeRobotLayout, reader: EpisodeReader) -> list[str]:
    """Say what is not as it was in the dataset."""
    words = list(layout.given_up)
    for key in layout.cameras:
        shape = layout.features[key]["shape"]
        channels = shape[:1] + shape[-1:]
        if 4 in channels and 3 not in channels:
            words.append(f"the fourth channel of {key}")
    if reader.deep:
        words.append(f"more than 8 bits of {', '.join(reader.deep)}: scaled to 8")
    if reader.resized:
        words.append(f"the sizes in meta/info.json of {', '.join(reader.resized)}: the frames have others")
    values = [key for key in layout.values if key != INTERVENTION]
    for key in values:
        feature = layout.features[key]
        given = feature.get("names")
        if given and not _flat_names(key, feature) and given != _numbered_names(key, feature["shape"]):
            words.append(f"the names of {key}, which are not one for each of its {math.prod(feature['shape'])} numbers")
    dtypes = {layout.features[key]["dtype"] for key in values} - {"float32"}
    for dtype in sorted(dtypes):
        keys = ", ".join(key for key in values if layout.features[key]["dtype"] == dtype)
        words.append(f"the dtype {dtype} of {keys}: float32 instead")
    split = [f"{episode.number} ({len(episode.tasks)})" for episode in layout.episodes if len(episode.tasks) > 1]
    if split:
        words.append(f"episodes of several tasks: cut at each change (into how many): {', '.join(split)}")
    return words


def dataset_fingerprint(root: Path) -> str:
    """Return a short text that differs where a LeRobotDataset in a folder has changed, and is the same for a copy.

    It is of the metadata, which hold the statistics of every episode, and of names and sizes of all other files.
    """
    digest = hashlib.blake2b(digest_size=8)
    for folder in ("meta", "data", "videos"):
        for path in sorted(path for path in (root / folder).rglob("*") if path.is_file()):
            digest.update(f"{path.relative_to(root).as_posix()} {path.stat().st_size}\n".encode())
            if folder == "meta":
                digest.update(path.read_bytes())
    return digest.hexdigest()


def _write_dataset(store: DemoStore, root: Path, repo_id: str, use_videos: bool, console: Console) -> None:
    knows_success = bool((store.episode_success >= 0).all())
    features = {key: _lerobot_feature(key, store, use_videos) for key in store.features}
    if knows_success:
        features[SUCCESS] = {"dtype": "bool", "shape": (1,), "names": None}
    lengths = np.diff(store.episode_ends, prepend=0)
    dataset = LeRobotDataset.create(
        repo_id=repo_id,
        fps=store.fps,
        features=features,
        root=root,
        robot_type=_robot_type(store),
        use_videos=use_videos,
        video_backend="pyav",
        # Its streaming encoder drops frames when it falls behind, and fails on an episode of a single frame.
        streaming_encoding=False,
        image_writer_threads=2,
    )
    with _quiet_libraries(), progress_bar("episodes", store.num_episodes, console) as advance:
        for index, task in enumerate(store.episode_tasks):
            episode = store.episode(index)
            for step in range(lengths[index]):
                frame: dict[str, Any] = {key: values[step] for key, values in episode.items()}
                if INTERVENTION in frame:
                    frame[INTERVENTION] = frame[INTERVENTION] != 0
                if knows_success:
                    is_last = step == lengths[index] - 1
                    frame[SUCCESS] = np.array([is_last and store.episode_success[index] == 1])
                dataset.add_frame(frame | {"task": task})
            dataset.save_episode(parallel_encoding=False)
            advance()
        dataset.finalize()
    (root / _EXTRA_FILE).write_text(json.dumps(asdict(Record.of_store(store)), indent=2))


def _robot_type(store: DemoStore) -> str | None:
    """Return LeRobot's name of the robot: LeRobot merges datasets of one robot alone."""
    env = store.attributes.get("env", {})
    ours = str(env.get("type", "")).startswith("pixio_")
    return "pixio_sim" if ours else store.attributes.get("robot_type") or env.get("robot")


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Leave the terminal to our progress bar: LeRobot's libraries report every episode and every video.

    Its threads that write images log what they cannot write, and go on; it is raised here, whatever came of it.
    """
    unwritten: list[str] = []
    writers = logging.getLogger("lerobot.datasets.image_writer")

    def note(record: logging.LogRecord) -> bool:
        is_error = record.levelno >= logging.ERROR
        if is_error:
            unwritten.append(record.getMessage())
        return not is_error

    writers.addFilter(note)
    os.environ.setdefault("SVT_LOG", "1")  # errors
    set_libav_level(ERROR)
    datasets.disable_progress_bars()
    try:
        yield
    except Exception as error:
        if unwritten:
            raise OSError(unwritten[0]) from error
        raise
    finally:
        writers.removeFilter(note)
        datasets.enable_progress_bars()
    if unwritten:
        raise OSError(unwritten[0])


def _check_encodable(store: DemoStore) -> None:
    for key in store.image_keys:
        height, width = store.features[key].shape[:2]
        if width < _LEAST_VIDEO_WIDTH:
            raise UserError(
                f"{key} of {store.path} has frames of {height} x {width} px, but the encoder of LeRobot's videos takes none "
                f"narrower than {_LEAST_VIDEO_WIDTH} px: add use_videos=false."
            )


def _lerobot_feature(key: str, store: DemoStore, use_videos: bool) -> dict[str, Any]:
    feature = store.features[key]
    if feature.is_image:
        dtype = "video" if use_videos else "image"
        names = ["height", "width", "channels"]
        return {"dtype": dtype, "shape": feature.shape, "names": names, "info": {"is_depth_map": False}}
    if key == INTERVENTION:
        return {"dtype": "bool", "shape": feature.shape, "names": None}
    names = store.names.get(key) or _numbered_names(key, feature.shape)
    return {"dtype": feature.dtype, "shape": feature.shape, "names": names}


def _numbered_names(key: str, shape: Sequence[int]) -> list[str]:
    """Return what stands where no names are known: LeRobot's own tools go through names, and fail on null."""
    return [f"{key.rpartition('.')[2]}_{place}" for place in range(math.prod(shape))]


def _flat_names(key: str, feature: Mapping[str, Any]) -> list[str] | None:
    """Return a name for every number of a feature; LeRobot also has lists of them under a word, such as ``motors``."""
    names = feature.get("names")
    if isinstance(names, Mapping):
        of_parts = list(names.values())
        names = (
            [name for part in of_parts for name in part] if all(isinstance(p, list) for p in of_parts) else list(names)
        )
    shape = feature["shape"]
    if not isinstance(names, list) or len(names) != math.prod(shape) or names == _numbered_names(key, shape):
        return None
    return [str(name) for name in names]
