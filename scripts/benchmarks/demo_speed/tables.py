"""What was measured, as tables on the terminal."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def print_windows(result: Mapping[str, Any], console: Console) -> None:
    """Print what `measure_windows` returned."""
    sizes = ", ".join("x".join(map(str, shape[:2])) for shape in result["cameras"].values())
    table = Table(
        title=f"Windows of {result['n_obs_steps']} frames of {len(result['cameras'])} cameras ({sizes}) and "
        f"{result['action_horizon']} actions; one worker, one thread"
    )
    table.add_column("from")
    for heading in ("samples/s", "lowest to highest", "store is faster by", "lowest to highest"):
        table.add_column(heading, justify="right")
    rates = result["samples_per_second"]
    ours = rates["store"]
    for name, values in rates.items():
        ratios = [one / other for one, other in zip(ours, values)]
        table.add_row(
            name,
            f"{statistics.median(values):.0f}",
            f"{min(values):.0f} to {max(values):.0f}",
            *(("", "") if name == "store" else (_times(statistics.median(ratios)), _range(ratios))),
        )
    console.print(table)
    console.print(
        f"The store ({result['codec']}) loads {_times(result['median_store_to_lerobot'])} the samples of LeRobot's "
        f"dataset; the memory map loads {_times(result['median_memory_map_to_store'])} the store's (medians of the ratios "
        f"in {len(ours)} rounds).",
        highlight=False,
        soft_wrap=True,
    )


def print_memory(result: Mapping[str, Any], console: Console) -> None:
    """Print what `measure_memory` returned."""
    table = Table(title=f"Resident memory while {result['batches']} batches of windows are drawn")
    for heading in ("store on disk (MB)", "resident (MB)"):
        table.add_column(heading, justify="right")
    for store in result["stores"]:
        table.add_row(f"{store['store_bytes'] / 1e6:,.0f}", f"{store['resident_bytes'] / 1e6:.1f}")
    console.print(table)
    console.print(f"The last takes {100 * result['growth']:+.1f} % of the first.", highlight=False)


def print_conversion(result: Mapping[str, Any], console: Console) -> None:
    """Print what `measure_conversion` returned."""
    sizes = ", ".join("x".join(map(str, shape[:2])) for shape in result["cameras"].values())
    table = Table(
        title=f"Conversion of {result['steps']} steps with {len(result['cameras'])} cameras ({sizes}) to a store"
    )
    table.add_column("from")
    for heading in ("steps/s", "lowest to highest", "steps per s of processor"):
        table.add_column(heading, justify="right")
    for name, values in result["steps_per_second"].items():
        of_processor = statistics.median(result["steps_per_processor_second"][name])
        spread = f"{min(values):.0f} to {max(values):.0f}"
        table.add_row(name, f"{statistics.median(values):.0f}", spread, f"{of_processor:.0f}")
    console.print(table)


def _times(ratio: float) -> str:
    return f"{ratio:.3g}×"


def _range(ratios: Sequence[float]) -> str:
    return f"{_times(min(ratios))} to {_times(max(ratios))}"
