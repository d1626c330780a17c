"""Small images to pretrain on."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pixio_robot.pretraining.sources import ImageCache, folder_images


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Keep results bit for bit the same from run to run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write_images(folder: Path, count: int, size: tuple[int, int] = (40, 40)) -> None:
    """Write smooth random PNG images of (width, height)."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for index in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f"{index:03d}.png")


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_images(folder, 13)
    return folder


@pytest.fixture
def source(image_folder: Path, tmp_path: Path) -> ImageCache:
    return folder_images(image_folder, tmp_path / "cache", 40)
