"""Resident size of the data path, whatever the number of images."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tar_shards import write_shard

IMAGES_PER_SHARD = 500


def repeated_shards(folder: Path, images: int, side: int) -> Path:
    """Write one shard of noise and link it under as many names as it takes."""
    rng = np.random.default_rng(0)
    contents = {}
    for number in range(IMAGES_PER_SHARD):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(buffer, format="JPEG", quality=90)
        contents[f"{number:05d}.jpg"] = buffer.getvalue()
    first = folder / "shard-00000.tar"
    write_shard(first, contents)
    for shard in range(1, images // IMAGES_PER_SHARD):
        os.link(first, folder / f"shard-{shard:05d}.tar")
    return folder


def resident_megabytes(folder: Path, images: int) -> float:
    script = Path(__file__).parents[2] / "helpers" / "resident_size.py"
    command = [sys.executable, str(script), str(folder), str(images)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def compare(tmp_path: Path, few: int, many: int, side: int) -> None:
    small = resident_megabytes(repeated_shards(tmp_path / "few", few, side), few)
    large = resident_megabytes(repeated_shards(tmp_path / "many", many, side), many)
    print(f"{few} images: {small} MB, {many} images: {large} MB")
    assert large == pytest.approx(small, rel=0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ten_times_the_images_take_no_more_memory(tmp_path: Path) -> None:
    # Images of 5 kB: held in memory, the larger set would take 80 MB more.
    compare(tmp_path, 2_000, 18_000, side=48)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.timeout(3000)
def test_a_million_images_take_no_more_memory_than_ten_thousand(tmp_path: Path) -> None:
    compare(tmp_path, 10_000, 1_000_000, side=16)
