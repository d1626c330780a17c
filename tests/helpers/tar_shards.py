"""Small tar shards to stream from."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def jpeg(number: int, size: tuple[int, int] = (20, 16)) -> bytes:
    """Encode a smooth random image of (width, height)."""
    pixels = np.random.default_rng(number).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(buffer, format="JPEG")
    return buffer.getvalue()


def write_shard(file: Path, contents: dict[str, bytes]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def write_shards(folder: Path, shards: int, images: int) -> Path:
    """Write `shards` shards of `images` images each, with a caption beside every image."""
    for shard in range(shards):
        contents = {}
        for image in range(images):
            number = shard * images + image
            contents[f"{number:05d}.jpg"] = jpeg(number)
            contents[f"{number:05d}.txt"] = b"a caption"
        write_shard(folder / f"shard-{shard:03d}.tar", contents)
    return folder
