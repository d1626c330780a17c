"""Collect into a folder on which a small disk is mounted first; print what is said and what is kept."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
from forked import mount_small_disk

if __name__ == "__main__":
    disk, memory = (Path(argument) for argument in sys.argv[1:])
    mount_small_disk(disk)  # before imports that start threads: the kernel gives a namespace to a single thread only

from rich.console import Console
from toy_expert_env import ToyExpertEnvConfig

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore
from pixio_robot.demos.collection.collection import collect

if __name__ == "__main__":
    config = ToyExpertEnvConfig(image_size=48, camera_names=["front"], memory=str(memory))
    try:
        collect(config, disk / "demos.zarr", 1000, workers=2, console=Console(quiet=True))
    except UserError as error:
        print(error)
    store = DemoStore.open(disk / "demos.zarr")
    store.episode(store.num_episodes - 1)
    print(store.num_episodes)
