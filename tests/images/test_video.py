"""Known colours through video of every range, colour space and orientation, to the error of the codec."""

import numpy as np
import pytest
from tagged_video import BT601, BT709, BT2020, FULL, LIMITED, SMPTE170M, write_video

from pixio_robot.images.video import VideoError, video_frames

COLOURS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (128, 128, 128), (200, 50, 100)])
CARD = np.repeat(np.repeat(COLOURS[None].astype(np.uint8), 64, 0), 64, 1)


def stripes(pixels: np.ndarray) -> np.ndarray:
    return np.stack([pixels[20:44, 64 * n + 20 : 64 * n + 44].mean((0, 1)) for n in range(len(COLOURS))])


@pytest.mark.parametrize(
    ("codec", "pixels", "space", "reach"),
    [
        ("libx264", "yuv420p", None, None),
        ("libx264", "yuv420p", BT601, LIMITED),
        ("libx264", "yuv420p", SMPTE170M, LIMITED),
        ("libx264", "yuv420p", BT709, LIMITED),
        ("libx264", "yuv420p", BT709, FULL),
        ("libx264", "yuvj420p", None, FULL),
        ("libx264", "yuv444p", BT709, FULL),
        ("libx264", "yuv420p10le", BT709, LIMITED),
        ("libx264", "yuv420p", BT2020, LIMITED),
        ("libsvtav1", "yuv420p", None, None),
        ("libsvtav1", "yuv420p", None, FULL),
        ("libsvtav1", "yuv420p", BT709, LIMITED),
        ("libvpx-vp9", "yuv420p", None, FULL),
        ("libvpx-vp9", "yuva420p", None, None),
        ("ffv1", "bgr0", None, None),
        ("ffv1", "bgra", None, None),
        ("libx264rgb", "rgb24", None, None),
    ],
)
def test_colours_come_back(tmp_path, codec, pixels, space, reach):
    write_video(tmp_path / "card.mkv", codec, pixels, space, reach, [CARD] * 3)
    (frame,) = video_frames(tmp_path / "card.mkv", [0.1], 0.05)
    assert frame.shape == CARD.shape and frame.dtype == np.uint8
    assert np.abs(stripes(frame) - COLOURS).max() <= 4


# The matrices of ISO/IEC 14496-12, in 16.16 and 2.30 fixed point: turned clockwise by so many quarters when shown.
MATRICES = {
    0: (1, 0, 0, 1),
    1: (0, 1, -1, 0),
    2: (-1, 0, 0, -1),
    3: (0, -1, 1, 0),
}


@pytest.mark.parametrize("quarters", MATRICES)
def test_upright_by_what_the_file_says(tmp_path, quarters):
    write_video(tmp_path / "card.mp4", "libx264", "yuv420p", None, None, [CARD] * 2)
    content = bytearray((tmp_path / "card.mp4").read_bytes())
    place = content.index(b"tkhd") + 4 + 40  # version 0: the matrix stands 40 bytes behind
    a, b, c, d = MATRICES[quarters]
    one = 1 << 16
    matrix = np.array([a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30], ">i4").tobytes()
    assert content[place : place + 4] == np.array([one], ">i4").tobytes()
    content[place : place + 36] = matrix
    (tmp_path / "card.mp4").write_bytes(content)
    (frame,) = video_frames(tmp_path / "card.mp4", [0.0], 0.05)
    np.testing.assert_allclose(stripes(np.rot90(frame, quarters)), COLOURS, atol=4)


def numbered(count: int) -> list[np.ndarray]:
    return [np.full((64, 64, 3), 20 * number, np.uint8) for number in range(count)]


def test_frames_are_those_nearest_to_their_times(tmp_path):
    write_video(tmp_path / "grey.mp4", "libx264", "yuv420p", None, None, numbered(10))
    times = [0.0, 0.1, 0.14, 0.26, 0.3, 0.3, 0.9]
    seen = [round(frame.mean() / 20) for frame in video_frames(tmp_path / "grey.mp4", times, 0.05)]
    assert seen == [0, 1, 1, 3, 3, 3, 9]
    seen = [round(frame.mean() / 20) for frame in video_frames(tmp_path / "grey.mp4", [0.7, 0.8], 0.05)]
    assert seen == [7, 8]


@pytest.mark.parametrize("times", [[0.8, 0.9, 1.0], [5.0], [0.33]])
def test_a_frame_that_is_not_there_is_missed(tmp_path, times):
    write_video(tmp_path / "grey.mp4", "libx264", "yuv420p", None, None, numbered(10))
    with pytest.raises(VideoError, match="but the nearest is at|but there is none"):
        list(video_frames(tmp_path / "grey.mp4", times, 0.02))
