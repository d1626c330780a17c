"""Camera frames of a LeRobotDataset v3 in a local folder, without LeRobot: videos are decoded in sequence."""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow
import pyarrow.dataset
from av.error import FFmpegError
from PIL import Image

from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.demos.formats.lerobot_layout import LeRobotLayout, open_layout
from pixio_robot.images.decoding import shrink
from pixio_robot.images.video import VideoError, video_frames
from pixio_robot.pretraining.sources.grouped import Group, GroupedStream, Item, check_share, shuffled_share
from pixio_robot.pretraining.sources.stream import Lane

FRAMES_PER_PIECE = 64

log = logging.getLogger(__name__)


class _Piece(NamedTuple):
    """Frames of one camera and episode that are read together: a stretch of a video, or rows of a table."""

    camera: str
    episode: int
    file: Path
    seconds: float | None  # where the episode begins in the video; None is no video
    rows: tuple[int, ...]  # of the frames in the data file
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
        layout = open_layout(root)
        for camera in cameras or []:
            if camera not in layout.cameras:
                depth = [words for words in layout.given_up if words.startswith(f"{camera},")]
                reason = f"which frames are taken of ({depth[0]} and is left out)" if depth else f"{camera!r}"
                raise UserError(f"{path} has no camera {reason}. {nearest_name(camera, layout.cameras)}")
        self._fps = layout.fps
        self._pieces = list(_pieces(layout, list(cameras or layout.cameras), every))
        if not self._pieces:
            raise UserError(f"{path} holds no camera frames: give a LeRobotDataset that was recorded with cameras.")
        left_out = [words for words in layout.given_up if words.endswith("which is depth")] if cameras is None else []
        if left_out:
            log.warning("%s: left out: %s", path, "; ".join(left_out))
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
            read = _table_frames(piece) if piece.seconds is None else self._video_frames(piece)
            items += [
                Item(f"{piece.camera} episode {piece.episode} frame {frame}", content, opaque=True)
                for frame, content in zip(piece.frames, read, strict=True)
            ]
        return Group(items, len(items))

    def _video_frames(self, piece: _Piece) -> Iterator[np.ndarray | Exception]:
        """Yield the frames of a piece; from where a video is damaged on, what went wrong."""
        assert piece.seconds is not None
        times, done = [piece.seconds + frame / self._fps for frame in piece.frames], 0
        try:
            # Within half a frame there is one frame only; the times of long videos are not exact.
            for frame in video_frames(piece.file, times, 0.5 / self._fps):
                yield shrink(Image.fromarray(frame), self.side)
                done += 1
        except (VideoError, FFmpegError, OSError, ValueError) as error:
            yield from [error] * (len(times) - done)


def _table_frames(piece: _Piece) -> Iterator[bytes | Exception]:
    try:
        table = pyarrow.dataset.dataset(piece.file).take(list(piece.rows), columns=[piece.camera])
    except (OSError, pyarrow.ArrowException) as error:
        yield from (error for _ in piece.rows)
        return
    for image in table[piece.camera].to_pylist():
        encoded = image.get("bytes") if isinstance(image, dict) else None
        yield encoded if encoded else ValueError("no image")


def _pieces(layout: LeRobotLayout, cameras: Sequence[str], every: int) -> Iterator[_Piece]:
    for episode in layout.episodes:
        frames = range(0, len(episode.rows_T), every)
        for camera in cameras:
            video = episode.videos.get(camera)
            for start in range(0, len(frames), FRAMES_PER_PIECE):
                part = frames[start : start + FRAMES_PER_PIECE]
                rows = () if video else tuple(episode.rows_T[list(part)].tolist())
                file, seconds = (video.file, video.seconds) if video else (episode.file, None)
                yield _Piece(camera, episode.number, file, seconds, rows, part)
