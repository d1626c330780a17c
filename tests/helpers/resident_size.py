"""Read all images of a folder of shards once, as training does, and print the largest resident size in MB."""

import sys
from pathlib import Path

import torch

from pixio_robot.pretraining.batches import training_batches
from pixio_robot.pretraining.config import PretrainConfig
from pixio_robot.pretraining.sources import open_source


def resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def main(path: str, images: int) -> None:
    torch.set_num_threads(1)
    config = PretrainConfig(variant="pixio_tiny16", image_size=16, batch_size=250, accumulation=1, steps=1, lr=1e-3)
    source = open_source({"kind": "shards", "path": path}, Path("unused"))
    largest = 0.0
    for batch in training_batches(config, source, 0, images // 250):
        assert len(batch.names) == 250
        if batch.step % 4 == 0:
            largest = max(largest, resident_megabytes())
    print(f"{largest:.1f}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
