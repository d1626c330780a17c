"""Decodes the episodes of a LeRobotDataset: numbers as they are, frames as upright RGB.

Letters of shape suffixes: T steps.
"""

import io
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow
import pyarrow.parquet
import torch
from av.error import FFmpegError

from pixio_robot.common.errors import UserError
from pixio_robot.demos.formats.lerobot_info import SUCCESS
from pixio_robot.demos.formats.lerobot_layout import LeRobotEpisode, LeRobotLayout
from pixio_robot.demos.formats.transfer import Episode, Record, explains_unreadable
from pixio_robot.demos.store.layout import Feature
from pixio_robot.images.decoding import decode
from pixio_robot.images.preprocessing import fit_frames
from pixio_robot.images.video import VideoError, video_frames

_FRAMES_AT_ONCE = 128


class EpisodeReader:
    """Reads episodes, with one data file in memory at a time."""

    def __init__(self, layout: LeRobotLayout, image_size: int | None) -> None:
        """Find out of what size the frames are, by the first of each camera.

        Raises:
            UserError: It cannot be read.
        """
        self._layout, self._image_size = layout, image_size
        self._success = SUCCESS if SUCCESS in layout.features else None
        self._open: tuple[Path, pyarrow.Table] | None = None
        first = layout.episodes[0]
        self._sizes = {key: next(self._frames(key, first, range(1))).shape[:2] for key in layout.cameras}
        self.deep = [key for key in layout.cameras if self._is_deep(key, first)]
        self.resized = [key for key in layout.cameras if sorted(self._declared(key)) != sorted(self._sizes[key])]

    @property
    def features(self) -> dict[str, Feature]:
        """What a step holds, in the order of the dataset."""
        size = self._image_size
        found = {}
        for key, feature in self._layout.features.items():
            if key in self._sizes:
                found[key] = Feature(((size, size) if size else self._sizes[key]) + (3,), "uint8")
            elif key in self._layout.values:
                found[key] = Feature(tuple(feature["shape"]), "float32")
        return found

    def episodes(self, record: Record) -> Iterator[Episode]:
        """Yield the episodes; one whose task changes becomes several, of which the last has its success.

        Raises:
            UserError: A row, an image or a frame is missing or damaged, a number is missing, or sizes differ.
        """
        features = self.features
        for place, episode in enumerate(self._layout.episodes):
            steps = range(len(episode.rows_T))
            data = {key: self._values(key, features[key].shape, episode) for key in self._layout.values}
            for key in self._layout.cameras:
                data[key] = fit_frames(self._batches(key, episode, steps), self._image_size)
            success = record.success[place]
            if self._success is not None:
                success = self._succeeded(self._success, episode)
            ends = [start for start, _ in episode.tasks[1:]] + [len(steps)]
            for (start, task), end in zip(episode.tasks, ends, strict=True):
                part = {key: data[key][start:end] for key in features}
                is_last = end == len(steps)
                yield Episode(part, record.seeds[place], success if is_last else None, task)

    def _succeeded(self, key: str, episode: LeRobotEpisode) -> bool | None:
        """Return whether a step says that the episode succeeded; None where all are silent."""
        said = []
        for step, row in enumerate(self._column(key, episode).to_pylist()):
            for value in _leaves(row):
                if value not in (None, 0, 1):  # which False and True equal
                    raise self._damaged(key, episode, step, f"is {value!r}, where true or false should be")
                said.append(value)
        known = [bool(value) for value in said if value is not None]
        return any(known) if known else None

    def _is_deep(self, key: str, episode: LeRobotEpisode) -> bool:
        """Return whether the images of a camera have more than 8 bits."""
        if self._layout.is_video(key):
            return False
        first = self._column(key, episode)[0].as_py()
        image = PIL.Image.open(io.BytesIO(first if isinstance(first, bytes) else first["bytes"]))
        return image.mode.startswith("I")

    def _declared(self, key: str) -> Sequence[int]:
        """Return height and width by the metadata, in either order."""
        shape = list(self._layout.features[key]["shape"])
        if len(shape) == 3:
            shape.pop(0 if shape[2] not in (1, 3, 4) else 2)
        return shape

    def _column(self, key: str, episode: LeRobotEpisode) -> pyarrow.ChunkedArray:
        if self._open is None or self._open[0] != episode.file:
            layout = self._layout
            stored = [*layout.values, *(key for key in layout.cameras if not layout.is_video(key))]
            stored += [self._success] if self._success else []
            name = episode.file.relative_to(layout.root).as_posix()
            with explains_unreadable(layout.root, name):
                there = pyarrow.parquet.read_schema(episode.file).names
                for wanted in stored:
                    if wanted not in there:
                        raise UserError(
                            f"The LeRobotDataset {layout.root} contradicts itself: {name} has no column {wanted}, which "
                            "meta/info.json describes; fetch it anew."
                        )
                self._open = episode.file, pyarrow.parquet.read_table(episode.file, columns=stored)
        rows_T, column = episode.rows_T, self._open[1][key]
        first, last = int(rows_T[0]), int(rows_T[-1])
        if last - first == len(rows_T) - 1 and np.array_equal(rows_T, np.arange(first, last + 1)):
            return column.slice(first, len(rows_T))
        return column.take(rows_T)

    def _where(self, key: str, episode: LeRobotEpisode, step: int) -> str:
        file = episode.videos[key].file if key in episode.videos else episode.file
        return f"{file.relative_to(self._layout.root).as_posix()}: {key} of episode {episode.number}, step {step},"

    def _damaged(self, key: str, episode: LeRobotEpisode, step: int, what: str) -> UserError:
        return UserError(
            f"The LeRobotDataset {self._layout.root} is damaged or incomplete in {self._where(key, episode, step)} {what}; "
            "fetch it anew, or leave the episode out with lerobot-edit-dataset."
        )

    def _values(self, key: str, shape: tuple[int, ...], episode: LeRobotEpisode) -> np.ndarray:
        column = self._column(key, episode)
        values_T = _flat(column, math.prod(shape))
        if values_T is None:
            step, what = _odd_row(column.to_pylist(), math.prod(shape))
            raise self._damaged(key, episode, step, f"{what}, where {math.prod(shape)} numbers should be")
        return values_T.reshape(len(column), *shape)

    def _batches(self, key: str, episode: LeRobotEpisode, steps: range) -> Iterator[torch.Tensor]:
        frames = enumerate(self._frames(key, episode, steps))
        for some in itertools.batched(frames, _FRAMES_AT_ONCE):
            for step, frame in some:
                if frame.shape[:2] != self._sizes[key]:
                    sizes = f"{frame.shape[0]} x {frame.shape[1]} px", "{} x {} px".format(*self._sizes[key])
                    raise self._damaged(key, episode, step, f"is {sizes[0]} high and wide, the first frame {sizes[1]}")
            yield torch.from_numpy(np.stack([frame for _, frame in some]))

    def _frames(self, key: str, episode: LeRobotEpisode, steps: range) -> Iterator[np.ndarray]:
        if not self._layout.is_video(key):
            yield from self._images(key, episode, steps)
            return
        stretch, fps = episode.videos[key], self._layout.fps
        seconds = [stretch.seconds + step / fps for step in steps]
        step = steps.start
        try:
            # Within half a frame there is one frame only; the times of long videos are not exact.
            for frame in video_frames(stretch.file, seconds, 0.5 / fps):
                yield frame
                step += 1
        except (VideoError, FFmpegError, OSError, ValueError) as error:
            raise self._damaged(key, episode, step, f"cannot be read ({_first_line(error)})") from error

    def _images(self, key: str, episode: LeRobotEpisode, steps: range) -> Iterator[np.ndarray]:
        column = self._column(key, episode)
        for start in steps[::_FRAMES_AT_ONCE]:
            for step, image in enumerate(
                column.slice(start, min(_FRAMES_AT_ONCE, len(steps) - start)).to_pylist(), start
            ):
                image = image if isinstance(image, dict) else {"path" if isinstance(image, str) else "bytes": image}
                encoded, path = image.get("bytes"), image.get("path")
                if not isinstance(encoded, bytes) or not encoded:
                    raise self._damaged(key, episode, step, f"has no image{f', only the path {path}' if path else ''}")
                decoded = decode(encoded, opaque=True)
                if isinstance(decoded, Exception):
                    raise self._damaged(key, episode, step, f"cannot be read ({_first_line(decoded)})")
                yield np.asarray(decoded)


def _flat(column: pyarrow.ChunkedArray, width: int) -> np.ndarray | None:
    """Return the numbers of all rows behind each other, float32; None where a row has others than `width` numbers."""
    array = column.combine_chunks()
    while True:
        if isinstance(array, pyarrow.ChunkedArray):
            array = array.chunk(0) if array.num_chunks == 1 else pyarrow.concat_arrays(array.chunks)
        if isinstance(array, pyarrow.ExtensionArray):
            array = array.storage
        if array.null_count:
            return None
        if not pyarrow.types.is_nested(array.type):
            break
        if pyarrow.types.is_struct(array.type) or pyarrow.types.is_map(array.type):
            return None
        if not pyarrow.types.is_fixed_size_list(array.type):
            lengths = np.asarray(array.value_lengths())
            if len(lengths) and (lengths != lengths[0]).any():
                return None
        array = array.flatten()
    if len(array) != len(column) * width or not _is_number(array.type):
        return None
    numbers = array.to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):  # what is too large is found where numbers are checked
        return numbers.astype(np.float32)


def _is_number(kind: pyarrow.DataType) -> bool:
    return pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) or pyarrow.types.is_boolean(kind)


def _odd_row(rows: list[Any], width: int) -> tuple[int, str]:
    """Return the first row that has not `width` numbers, and what it has."""
    for step, row in enumerate(rows):
        numbers = list(_leaves(row))
        if row is None or None in numbers:
            return step, "is empty" if row is None else "has an empty number"
        if not all(isinstance(number, int | float) for number in numbers):
            return step, f"holds {type(numbers[0]).__name__}"
        if len(numbers) != width:
            return step, f"has {len(numbers)} numbers"
    return 0, "is of rows of different shapes"


def _leaves(value: Any) -> Iterator[Any]:  # noqa: ANN401 (whatever a column holds)
    if isinstance(value, list):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
