"""Measure how fast a demonstration store gives windows, beside a memory map and LeRobot's dataset, its memory, or conversion.

uv run scripts/benchmarks/benchmark_demos.py path=outputs/demos/lift.zarr
uv run scripts/benchmarks/benchmark_demos.py path=outputs/demos/lift.zarr mode=conversion
uv run scripts/benchmarks/benchmark_demos.py mode=memory 'memory.megabytes=[200]'
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.errors import UserError
from pixio_robot.common.settings import Count, Place, Positive, Text, Whole, settings

if TYPE_CHECKING:
    from pixio_robot.demos import DemoStore


@settings
class Windows:
    """How windows are drawn."""

    batch_size: Count = 32
    """Windows at once."""
    rounds: Count = 5
    """In turn: store, memory map, LeRobotDataset, store, … (with mode=conversion, each format)."""
    seconds: Positive = 5
    """Of each side in each round."""
    seed: Whole = 0
    """Of what is drawn."""


@settings
class Memory:
    """Which stores are made and deleted."""

    megabytes: tuple[Count, ...] = (200, 10000)
    """On disk, which needs room for the largest."""
    batches: Count = 300
    """Batches of 32 windows."""


@settings(kw_only=True)
class BenchmarkDemos:
    """Settings of the job."""

    mode: Literal["windows", "memory", "conversion"] = "windows"
    """`windows`: samples per second of one worker with one thread, from the store at `path`, from a memory map of the same frames
    and from a LeRobotDataset (video, PyAV) of the same episodes; a minute once they are made. `memory`: resident memory while
    windows are drawn from stores of several sizes; some minutes. `conversion`: steps per second from other formats to a store."""
    path: Text | None = None
    """A demonstration store."""
    n_obs_steps: Count = 2
    """Frames of a window."""
    action_horizon: Count = 16
    """Actions of a window."""
    windows: Windows = dataclasses.field(default_factory=Windows)
    """With mode=windows."""
    memory: Memory = dataclasses.field(default_factory=Memory)
    """With mode=memory."""
    output: Place = Path("outputs/benchmark_demos")
    """Folder of windows.json, memory.json, the memory maps and the LeRobotDataset."""


@entry_point("benchmark_demos", BenchmarkDemos, configs=Path(__file__).parent / "configs")
def main(settings: BenchmarkDemos) -> None:
    """Measure."""
    console, output = Console(), settings.output
    window = {"n_obs_steps": settings.n_obs_steps, "action_horizon": settings.action_horizon}
    if settings.mode == "conversion":
        from demo_speed.conversion import measure_conversion
        from demo_speed.tables import print_conversion

        result = measure_conversion(_store(settings), output, settings.windows.rounds, console)
        print_conversion(result, console)
    elif settings.mode == "windows":
        from demo_speed.tables import print_windows
        from demo_speed.windows import measure_windows

        result = measure_windows(
            _store(settings), output, **window, **dataclasses.asdict(settings.windows), console=console
        )
        print_windows(result, console)
    else:
        from demo_speed.memory import measure_memory
        from demo_speed.tables import print_memory

        result = measure_memory(output, **window, **dataclasses.asdict(settings.memory), console=console)
        print_memory(result, console)
    from pixio_robot.common.storage.files import write_json

    write_json(output / f"{settings.mode}.json", result)
    console.print(f"record {output / f'{settings.mode}.json'}", highlight=False, soft_wrap=True)


def _store(settings: BenchmarkDemos) -> "DemoStore":
    from pixio_robot.demos import DemoStore

    if settings.path is None:
        raise UserError("path must be given: add path=… with a demonstration store that collect_demos.py made.")
    return DemoStore.open(settings.path)


if __name__ == "__main__":
    main()
