"""How fast datasets of other formats become a demonstration store."""

import io
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from pixio_robot.demos import DemoStore
from pixio_robot.demos.formats.conversion import convert

_SOURCES = {"lerobot_video": True, "lerobot_images": False, "robomimic.hdf5": None, "replay_buffer.zarr": None}


def measure_conversion(store: DemoStore, output: Path, rounds: int, console: Console) -> dict[str, Any]:
    """Convert a store to each format, once and for all, and each of them back in turn.

    Args:
        store: Demonstrations with cameras.
        output: Folder of the datasets, which stay.
        rounds: How often each is converted.
        console: Where to say what is done.

    Returns:
        ``steps``, ``cameras`` (shapes of frames), and by source steps per second, and per second of processor time, of each
        round. The latter says more where other programs run.
    """
    quiet = Console(file=io.StringIO())
    for name, use_videos in _SOURCES.items():
        if not (output / name).exists():
            options = {"format": "replay_buffer"} if name.startswith("replay") else {}
            options |= {} if use_videos is None else {"use_videos": use_videos}
            convert(store.path, output / name, console=quiet, **options)  # pyright: ignore[reportArgumentType]
            console.print(f"made {output / name}", highlight=False, soft_wrap=True)
    rates: dict[str, list[float]] = {name: [] for name in _SOURCES}
    processor: dict[str, list[float]] = {name: [] for name in _SOURCES}
    for _ in range(rounds):
        for name in _SOURCES:
            with tempfile.TemporaryDirectory(dir=output) as temporary:
                wall, cpu = time.perf_counter(), time.process_time()
                convert(output / name, Path(temporary) / "back.zarr", console=quiet)
                rates[name].append(store.num_steps / (time.perf_counter() - wall))
                processor[name].append(store.num_steps / (time.process_time() - cpu))
    return {
        "steps": store.num_steps,
        "cameras": {key: store.features[key].shape for key in store.image_keys},
        "steps_per_second": rates,
        "steps_per_processor_second": processor,
        "medians": {name: statistics.median(values) for name, values in rates.items()},
    }
