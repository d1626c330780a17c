"""The comparisons as tables on the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from policy_speed.clock import STAGES

_SIDES = ("ours", "lerobot")


def print_speed(record: Mapping[str, Any], console: Console) -> None:
    """Print what `scripts/benchmark_policies.py mode=speed` measured, a table for each comparison."""
    for name, result in record["comparisons"].items():
        table = Table(
            title=f"{name}: {result['batch_size']} windows of {result['action_horizon']} actions a step, "
            f"{result['n_obs_steps']} observation(s) of {len(record['cameras'])} cameras"
        )
        table.add_column("ms of a step")
        for heading in (f"{result['types']['ours']}", "share", f"LeRobot {result['types']['lerobot']}", "share"):
            table.add_column(heading, justify="right")
        table.add_column("ratio", justify="right")
        for stage in STAGES:
            seconds = [result[side]["stages"][stage] for side in _SIDES]
            table.add_row(stage, *_timed(result, seconds), _ratio(seconds[1] / seconds[0]))
        table.add_section()
        seconds = [result[side]["seconds_per_step"] for side in _SIDES]
        table.add_row("step", *_timed(result, seconds), _ratio(result["ratio"]), style="bold")
        rates = [f"{result[side]['samples_per_second']:.1f}" for side in _SIDES]
        table.add_row("samples per second", rates[0], "", rates[1], "", _ratio(result["ratio"]), style="bold")
        for row, key in (("parameters (M)", "parameters"), ("trainable (M)", "trainable_parameters")):
            millions = [f"{result[side][key] / 1e6:.2f}" for side in _SIDES]
            table.add_row(row, millions[0], "", millions[1], "", "")
        console.print(table)
        low, high = result["ratio_range"]
        console.print(
            f"{name}: {_ratio(result['ratio'])} the samples per second ({_ratio(low)} to {_ratio(high)} in "
            f"{len(result['ours']['rounds'])} rounds); {_ratio(result['ratio_loading_hidden'])} if LeRobot's loading "
            f"cost nothing; {_ratio(result['ratio_with_caching'])} with our encoding of all frames "
            f"({record['cache_seconds']:.0f} s) counted in a run of {record['run_steps']} steps.",
            highlight=False,
        )
    console.print(
        f"{record['threads']} of {record['cores']} cores train; {record['frames']} steps of {record['episodes']} "
        f"episodes, to LeRobot as {record['dataset_format']} through {record['video_backend']}, loaded in the training "
        f"process.",
        highlight=False,
    )


def print_success(record: Mapping[str, Any], console: Console) -> None:
    """Print what `scripts/benchmark_policies.py mode=success` measured."""
    table = Table(title=f"{record['minutes']:g} minutes of training on {record['threads']} of {record['cores']} cores")
    for heading in ("comparison", "policy"):
        table.add_column(heading)
    for heading in ("steps", "samples", "minutes", "success", "95 % interval", "p"):
        table.add_column(heading, justify="right")
    for name, result in record["comparisons"].items():
        for side in _SIDES:
            measured = result[side]
            low, high = measured["ci95"]
            table.add_row(
                name if side == "ours" else "",
                f"{'LeRobot ' if side == 'lerobot' else ''}{result['types'][side]}",
                str(measured["steps"]),
                str(measured["samples"]),
                f"{measured['seconds'] / 60:.1f}",
                f"{100 * measured['success_rate']:.0f} %",
                f"{100 * low:.0f}–{100 * high:.0f} %",
                f"{result['p_value']:.2g}" if side == "lerobot" else "",
            )
        table.add_section()
    console.print(table)
    console.print("p: exact McNemar test that both succeed equally often on the same seeds.", highlight=False)


def _timed(result: Mapping[str, Any], seconds: list[float]) -> list[str]:
    cells = []
    for side, value in zip(_SIDES, seconds, strict=True):
        share = value / result[side]["seconds_per_step"]
        cells += [f"{1000 * value:.1f}", f"{100 * share:.0f} %"]
    return cells


def _ratio(value: float) -> str:
    return f"{value:.0f}×" if value >= 10 else f"{value:.1f}×"
