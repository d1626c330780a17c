"""Converts between a demonstration store and a LeRobotDataset v3 in a local folder, without the network."""

import contextlib
import hashlib
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import PIL.Image
import pyarrow.parquet
import torch
from av.logging import ERROR, set_libav_level
from lerobot.datasets import LeRobotDataset, LeRobotDatasetMetadata
from lerobot.datasets.video_utils import decode_video_frames
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.common.progress import progress_bar
from pixio_robot.demos.formats.transfer import (
    Episode,
    Record,
    check_not_empty,
    explains_unreadable,
    new_result,
    write_store,
)
from pixio_robot.demos.store.codecs import LOSSLESS
from pixio_robot.demos.store.layout import Feature
from pixio_robot.demos.store.store import DemoStore
from pixio_robot.images.preprocessing import fit_frames

_SUCCESS_KEY = "next.success"
# What LeRobot's format has no place for.
_EXTRA_FILE = Path("meta/pixio_robot.json")
_FRAMES_AT_ONCE = 128


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
        UserError: There is something at `root`, the store is empty or damaged, or the disk is full.
    """
    check_not_empty(store)
    with new_result(Path(root)) as unfinished:
        _write_dataset(store, unfinished, repo_id, use_videos, console or Console(stderr=True))


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
    meta = _open_metadata(root)
    saved = json.loads((root / _EXTRA_FILE).read_text()) if (root / _EXTRA_FILE).exists() else {}
    record = Record.from_json(saved, meta.total_episodes)
    names = {key: flat for key, feature in meta.features.items() if (flat := _flat_names(key, feature))}
    attributes = (
        {"names": names}
        | record.attributes
        | {
            "fps": meta.fps,
            "source": f"LeRobotDataset {root.name}",
            "source_fingerprint": dataset_fingerprint(root),
        }
    )
    features = _store_features(meta, image_size)
    episodes = _read_episodes(meta, image_size, record)
    return write_store(store_path, features, attributes, episodes, meta.total_episodes, codec, console)


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
        features[_SUCCESS_KEY] = {"dtype": "bool", "shape": (1,), "names": None}
    lengths = np.diff(store.episode_ends, prepend=0)
    dataset = LeRobotDataset.create(
        repo_id=repo_id,
        fps=store.fps,
        features=features,
        root=root,
        robot_type=store.attributes.get("env", {}).get("robot"),
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
                if knows_success:
                    is_last = step == lengths[index] - 1
                    frame[_SUCCESS_KEY] = np.array([is_last and store.episode_success[index] == 1])
                dataset.add_frame(frame | {"task": task})
            dataset.save_episode(parallel_encoding=False)
            advance()
        dataset.finalize()
    (root / _EXTRA_FILE).write_text(json.dumps(asdict(Record.of_store(store)), indent=2))


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Leave the terminal to our progress bar: LeRobot's libraries report every episode and every video."""
    os.environ.setdefault("SVT_LOG", "1")  # errors
    set_libav_level(ERROR)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


def _lerobot_feature(key: str, store: DemoStore, use_videos: bool) -> dict[str, Any]:
    feature = store.features[key]
    if feature.is_image:
        dtype = "video" if use_videos else "image"
        return {"dtype": dtype, "shape": feature.shape, "names": ["height", "width", "channels"]}
    names = store.names.get(key) or _numbered_names(key, feature.shape)
    return {"dtype": feature.dtype, "shape": feature.shape, "names": names}


def _numbered_names(key: str, shape: Sequence[int]) -> list[str]:
    """Return what stands where no names are known: LeRobot's own tools go through names, and fail on null."""
    return [f"{key.rpartition('.')[2]}_{place}" for place in range(math.prod(shape))]


def _open_metadata(root: Path) -> LeRobotDatasetMetadata:
    """Open the metadata, having looked that all is there: LeRobot asks the hub for what is missing."""
    try:
        version = str(json.loads((root / "meta/info.json").read_bytes())["codebase_version"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{root} is not a LeRobotDataset: it has no readable meta/info.json; give the folder of one "
            "in version v3.0."
        ) from None
    if not version.startswith("v3."):
        raise UserError(
            f"{root} is a LeRobotDataset {version}, but v3.0 is needed: convert it with "
            "python -m lerobot.scripts.convert_dataset_v21_to_v30."
        )
    if not ((root / "meta/tasks.parquet").exists() and any((root / "meta/episodes").glob("*/*.parquet"))):
        raise UserError(f"The LeRobotDataset {root} is incomplete or empty: meta/ lacks tasks or episodes; fetch it.")
    meta = LeRobotDatasetMetadata(f"local/{root.name}", root)
    for key in meta.video_keys:
        video_fps = (meta.features[key].get("info") or {}).get("video.fps", meta.fps)
        if abs(video_fps - meta.fps) > 1:  # LeRobot notes it cut to a whole number: 29 of 29.97
            raise UserError(
                f"The LeRobotDataset {root} has mixed frame rates: {key} has {video_fps} Hz and its data {meta.fps} Hz; "
                "make one of a single rate of it."
            )
    for episode in range(meta.total_episodes):
        files = [meta.get_data_file_path(episode)]
        files += [meta.get_video_file_path(episode, key) for key in meta.video_keys]
        for file in files:
            if not (root / file).exists():
                raise UserError(f"The LeRobotDataset {root} is incomplete: {file} is missing; fetch it anew.")
    return meta


def _store_features(meta: LeRobotDatasetMetadata, image_size: int | None) -> dict[str, Feature]:
    features = {}
    for key, feature in meta.features.items():
        if key in meta.camera_keys:
            if key not in meta.depth_keys:
                height, width = (image_size, image_size) if image_size else _frame_size(feature)
                features[key] = Feature((height, width, 3), "uint8")
        elif key == "action" or key.startswith("observation."):
            features[key] = Feature(tuple(feature["shape"]), "float32")
    return features


def _flat_names(key: str, feature: Mapping[str, Any]) -> list[str] | None:
    """Return a name for every number of a feature; LeRobot also has lists of them under a word, such as ``motors``."""
    names = feature.get("names")
    if isinstance(names, Mapping):
        of_parts = list(names.values())
        names = (
            [name for part in of_parts for name in part] if all(isinstance(p, list) for p in of_parts) else list(names)
        )
    fits = isinstance(names, list) and len(names) == math.prod(feature["shape"])
    fits = fits and names != _numbered_names(key, feature["shape"])
    return [str(name) for name in names] if fits else None


def _frame_size(feature: dict[str, Any]) -> tuple[int, int]:
    size = dict(zip(feature["names"], feature["shape"], strict=True))
    return size["height"], size["width"]


def _read_episodes(meta: LeRobotDatasetMetadata, image_size: int | None, record: Record) -> Iterator[Episode]:
    """Yield the episodes, with one data file in memory at a time."""
    features = _store_features(meta, image_size)
    stored = [key for key in [*features, _SUCCESS_KEY] if key in meta.features and key not in meta.video_keys]
    columns = ["episode_index", "timestamp", "task_index", *stored]
    file, table = None, None
    for index in range(meta.total_episodes):
        if file != (file := meta.get_data_file_path(index)):
            with explains_unreadable(meta.root, str(file)):
                table = pyarrow.parquet.read_table(meta.root / file, columns=columns)
        assert table is not None
        rows = np.flatnonzero(table["episode_index"].to_numpy() == index)
        episode = table.slice(rows[0], len(rows))
        data = {}
        for key, feature in features.items():
            if key in meta.video_keys:
                timestamps = episode["timestamp"].to_numpy().astype(np.float64)
                data[key] = fit_frames(_decode_video(meta, index, key, timestamps), image_size)
            elif feature.is_image:
                data[key] = fit_frames(_decode_images(meta.root, f"{key} of episode {index}", episode[key]), image_size)
            else:
                values = np.array(episode[key].to_pylist(), np.float32)
                data[key] = values.reshape(len(rows), *feature.shape)
        success = record.success[index]
        if _SUCCESS_KEY in stored:
            success = bool(np.any(episode[_SUCCESS_KEY].to_pylist()))
        assert meta.tasks is not None
        task = str(meta.tasks.index[meta.tasks["task_index"] == episode["task_index"][0].as_py()][0])
        yield Episode(data, record.seeds[index], success, task)


def _decode_images(root: Path, what: str, column: pyarrow.ChunkedArray) -> Iterator[torch.Tensor]:
    for start in range(0, len(column), _FRAMES_AT_ONCE):
        images = column.slice(start, _FRAMES_AT_ONCE).to_pylist()
        with explains_unreadable(root, what):
            frames = [np.asarray(PIL.Image.open(io.BytesIO(image["bytes"])).convert("RGB")) for image in images]
        yield torch.from_numpy(np.stack(frames))


def _decode_video(meta: LeRobotDatasetMetadata, index: int, key: str, timestamps: np.ndarray) -> Iterator[torch.Tensor]:
    assert meta.episodes is not None
    path = meta.root / meta.get_video_file_path(index, key)
    timestamps = timestamps + meta.episodes[index][f"videos/{key}/from_timestamp"]
    for start in range(0, len(timestamps), _FRAMES_AT_ONCE):
        wanted = timestamps[start : start + _FRAMES_AT_ONCE].tolist()
        # Within half a frame there is one frame only; LeRobot's 0.1 ms is finer than float32 seconds of a
        # long video.
        with explains_unreadable(meta.root, path.relative_to(meta.root).as_posix()):
            frames = decode_video_frames(path, wanted, 0.5 / meta.fps, backend="pyav", return_uint8=True)
        yield frames.permute(0, 2, 3, 1)
