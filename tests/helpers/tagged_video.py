"""Videos that say of themselves which colour space and range they have."""

from pathlib import Path

import av
import numpy as np

FPS = 10
# FFmpeg's numbers of colour spaces and ranges
BT709, BT601, SMPTE170M, BT2020, LIMITED, FULL = 1, 5, 6, 9, 1, 2


def write_video(
    file: Path, codec: str, pixels: str, space: int | None, reach: int | None, frames: list[np.ndarray]
) -> None:
    """Write frames with a codec in a format of pixels, tagged with a colour space and a range; None leaves a tag out."""
    table = BT601 if space == SMPTE170M else space
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=FPS)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        if space is not None:
            stream.codec_context.colorspace = space
        if reach is not None:
            stream.codec_context.color_range = reach
        for number, image in enumerate(frames):
            # The destination alone would not do: PyAV looks at the tables where source and destination differ.
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
                format=pixels, dst_colorspace=table, dst_color_range=reach
            )
            if space is not None:
                frame.colorspace = space
            if reach is not None:
                frame.color_range = reach
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
