"""Camera frames of a LeRobotDataset v3 in a local folder, without LeRobot: videos are decoded in sequence.

Layout of the dataset (LeRobot 0.6): `meta/info.json` has features and path templates, `meta/episodes/*/*.parquet` says
which file and which seconds of it every episode of every camera takes, or which rows of which data file.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import pyarrow
import pyarrow.dataset
import pyarrow.parquet
from av.error import FFmpegError
from av.logging import FATAL, set_libav_level
from PIL import Image

from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.images.decoding import shrink
from pixio_robot.pretraining.sources.grouped import Group, GroupedStream, Item, check_share, shuffled_share
from pixio_robot.pretraining.sources.stream import Lane

FRAMES_PER_PIECE = 64

set_libav_level(FATAL)  # damaged videos are named in the run's log


class _Piece(NamedTuple):
    """Frames of one camera and episode that are read together: a stretch of a video, or rows of a table."""

    camera: str
    episode: int
    file: Path
    is_video: bool
    seconds: float  # where the episode begins in the video
    row: int  # where the episode begins in the data file
    frames: range  # within the episode


class LeRobotStream(GroupedStream):
    """Frames in pieces of a few seconds, pieces in a new order every epoch, shuffled within a group of pieces.

    Args:
        path: Folder of the dataset.
        side: Larger frames are shrunk until their shorter side has this many pixels.
        every: Take every n-th frame, since neighbours look alike.
        cameras: Keys `observation.images.<camera>`; None takes all.
        pieces_in_memory: Pieces of at most 64 frames that are shuffled together; twice as many are held, decoded.

    Raises:
        UserError: The folder is no complete LeRobotDataset v3 with cameras, or a camera is unknown.
    """

    def __init__(
        self,
        path: str,
        side: int = 256,
        every: int = 5,
        cameras: Sequence[str] | None = None,
        pieces_in_memory: int = 8,
    ) -> None:
        root = Path(path)
        info = _read_info(root)
        known = [key for key, feature in info["features"].items() if feature["dtype"] in ("video", "image")]
        for camera in cameras or []:
            if camera not in known:
                raise UserError(f"{path} has no camera {camera!r}. {nearest_name(camera, known)}")
        self._fps = float(info["fps"])
        self._pieces = list(_pieces(root, info, list(cameras or known), every))
        if not self._pieces:
            raise UserError(f"{path} holds no camera frames: give a LeRobotDataset that was recorded with cameras.")
        listing = "".join(f"{piece._replace(file=piece.file.relative_to(root))}\n" for piece in self._pieces)
        recipe = f"lerobot {side} {pieces_in_memory}\n{listing}"
        fingerprint = hashlib.sha256(recipe.encode()).hexdigest()[:16]
        super().__init__(path, fingerprint, side, pieces_in_memory)
        self.images: int | None = sum(len(piece.frames) for piece in self._pieces)

    def check(self, lanes: int) -> None:
        """Refuse more lanes than pieces.

        Raises:
            UserError: Says how many lanes are possible.
        """
        check_share(self.label, len(self._pieces), lanes)

    def lane_units(self, epoch: int, lane: Lane) -> list[_Piece]:
        """Return a lane's share of the pieces in the order of an epoch."""
        return shuffled_share(self._pieces, epoch, lane)

    def read(self, units: Iterable[_Piece], rng: np.random.Generator) -> Group:
        """Decode pieces of video, or read encoded images."""
        items = []
        for piece in units:
            read = self._video_frames(piece) if piece.is_video else _table_frames(piece)
            items += [
                Item(f"{piece.camera} episode {piece.episode} frame {frame}", content)
                for frame, content in zip(piece.frames, read, strict=True)
            ]
        return Group(items, len(items))

    def _video_frames(self, piece: _Piece) -> Iterator[np.ndarray | Exception]:
        """Yield the frames of a piece; from where a video is damaged on, what went wrong."""
        wanted = iter(piece.frames)
        frame = next(wanted, None)
        error: Exception = EOFError("the video ends too early")
        try:
            with av.open(str(piece.file)) as container:
                stream = container.streams.video[0]
                assert stream.time_base is not None
                begin = piece.seconds + piece.frames.start / self._fps
                container.seek(int(begin / stream.time_base), stream=stream)
                for decoded in container.decode(stream):
                    if frame is None:
                        return
                    assert decoded.pts is not None
                    # Within half a frame there is one frame only; timestamps of long videos are not exact.
                    number = round((float(decoded.pts * stream.time_base) - piece.seconds) * self._fps)
                    while frame is not None and number >= frame:
                        yield shrink(Image.fromarray(decoded.to_ndarray(format="rgb24")), self.side)
                        frame = next(wanted, None)
        except (FFmpegError, IndexError, OSError) as problem:
            error = problem
        while frame is not None:
            yield error
            frame = next(wanted, None)


def _table_frames(piece: _Piece) -> Iterator[bytes | Exception]:
    rows = [piece.row + frame for frame in piece.frames]
    try:
        table = pyarrow.dataset.dataset(piece.file).take(rows, columns=[piece.camera])
    except (OSError, pyarrow.ArrowException) as error:
        yield from (error for _ in rows)
        return
    for image in table[piece.camera].to_pylist():
        yield image["bytes"] if image and image["bytes"] else ValueError("no image")


def _read_info(root: Path) -> dict[str, Any]:
    try:
        info = json.loads((root / "meta/info.json").read_bytes())
        version = str(info["codebase_version"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{root} is not a LeRobotDataset: it has no readable meta/info.json; give the folder of one with images.path=…"
        ) from None
    if not version.startswith("v3."):
        raise UserError(f"{root} is a LeRobotDataset {version}, but v3.0 is needed: convert it with LeRobot's script.")
    return info


def _pieces(root: Path, info: dict[str, Any], cameras: Sequence[str], every: int) -> Iterator[_Piece]:
    files = sorted((root / "meta/episodes").glob("*/*.parquet"))
    if not files:
        raise UserError(f"The LeRobotDataset {root} is incomplete or empty: meta/episodes has no tables; fetch it.")
    begins: dict[Path, int] = {}  # first row of every data file
    for file in files:
        available = pyarrow.parquet.read_schema(file).names
        columns = [name for name in available if not name.startswith("stats/")]
        for episode in pyarrow.parquet.read_table(file, columns=columns).to_pylist():
            for camera in cameras:
                is_video = info["features"][camera]["dtype"] == "video"
                prefix = f"videos/{camera}" if is_video else "data"
                place = {f"{part}_index": episode[f"{prefix}/{part}_index"] for part in ("chunk", "file")}
                template = info["video_path"] if is_video else info["data_path"]
                path = root / template.format(video_key=camera, **place)
                if not path.is_file():
                    raise UserError(f"The LeRobotDataset {root} is incomplete: {path} is missing; fetch it anew.")
                first = begins.setdefault(path, episode["dataset_from_index"])
                seconds = episode[f"{prefix}/from_timestamp"] if is_video else 0.0
                frames = range(0, episode["length"], every)
                for start in range(0, len(frames), FRAMES_PER_PIECE):
                    part = frames[start : start + FRAMES_PER_PIECE]
                    row = episode["dataset_from_index"] - first
                    yield _Piece(camera, episode["episode_index"], path, is_video, seconds, row, part)
