"""Frames of video files as upright RGB, by what a file says of its range, colour space and orientation."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
from av.logging import FATAL, set_libav_level
from av.video.reformatter import ColorRange, VideoReformatter

# Whoever reads a damaged video says so in a sentence.
set_libav_level(FATAL)

# FFmpeg's numbers of colour spaces (AVColorSpace) to those that its converter knows: BT.709, FCC, BT.601 twice, SMPTE 240M
# and BT.2020. BT.601 is what writers mean who say nothing (2), since FFmpeg takes RGB apart by it; 0 is RGB itself.
_BT601, _BT709 = 5, 1
_SPACES = {0: _BT601, 1: _BT709, 2: _BT601, 4: 4, 5: _BT601, 6: _BT601, 7: 7, 9: 9}


class VideoError(Exception):
    """A frame that should be in a video is not."""


def video_frames(file: Path, seconds: Sequence[float], tolerance: float) -> Iterator[np.ndarray]:
    """Yield the frames nearest to some times, uint8 (H, W, 3) each, decoded in one go.

    Args:
        file: A video that FFmpeg reads.
        seconds: Rising times in the video.
        tolerance: Seconds by which a frame may lie beside a time.

    Raises:
        VideoError: There is no frame at one of them.
        av.FFmpegError: The file cannot be decoded.
    """
    wanted, number = iter(seconds), 0
    time = next(wanted, None)
    with av.open(str(file)) as container:
        if time is None or not container.streams.video:
            raise VideoError("there is no video in it")
        stream = container.streams.video[0]
        assert stream.time_base is not None
        container.seek(int(time / stream.time_base) - 1, stream=stream)
        converter, before = _Converter(), None
        for frame in container.decode(stream):
            if frame.pts is None:
                continue
            while time is not None and frame.time >= time:
                nearest = before if before is not None and time - before.time < frame.time - time else frame
                yield converter.rgb(_near(nearest, time, tolerance, number))
                time, number = next(wanted, None), number + 1
            if time is None:
                return
            before = frame
        while time is not None:
            yield converter.rgb(_near(before, time, tolerance, number))
            time, number = next(wanted, None), number + 1


def _near(frame: av.VideoFrame | None, time: float, tolerance: float, number: int) -> av.VideoFrame:
    if frame is None or abs(frame.time - time) > tolerance:
        nearest = "there is none" if frame is None else f"the nearest is at {frame.time:.4g} s"
        raise VideoError(f"frame {number} of those wanted should be at {time:.4g} s, but {nearest}")
    return frame


class _Converter:
    """Turns decoded frames into RGB; one that comes twice is turned once."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._last: tuple[av.VideoFrame, np.ndarray] | None = None

    def rgb(self, frame: av.VideoFrame) -> np.ndarray:
        if self._last is not None and self._last[0] is frame:
            return self._last[1]
        if frame.colorspace not in _SPACES:
            raise VideoError(
                f"its colour space, number {frame.colorspace} of FFmpeg's, is none that can be turned into RGB"
            )
        space = _SPACES[frame.colorspace]
        converted = self._reformatter.reformat(
            frame,
            format="rgb24",
            src_colorspace=space,
            # Of RGB it means nothing; PyAV looks at where a frame comes from only if it differs.
            dst_colorspace=_BT709 if space != _BT709 else _BT601,
            src_color_range=ColorRange.JPEG if frame.color_range == ColorRange.JPEG else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
        )
        pixels = converted.to_ndarray()
        if frame.rotation % 360:
            pixels = np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))
        self._last = frame, pixels
        return pixels
