"""What was found of an artifact, in the terminal."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from pixio_robot.deployment.artifact.verification import Latency, Verification


def print_verification(path: Path, verification: Verification, console: Console) -> None:
    """Print an artifact's description, the checks, the latencies and the verdict."""
    metadata = verification.metadata
    name = metadata["policy"] or metadata["kind"]
    cameras = ", ".join(
        f"{camera['key'].removeprefix('observation.images.')} {camera['height']}×{camera['width']} "
        f"{camera['colour_order']}"
        for camera in metadata["cameras"]
    )
    console.print(
        f"{path}: {name} on {metadata['encoder']['name']}, {metadata['form']}, {metadata['precision']}; {cameras}",
        highlight=False,
        soft_wrap=True,
    )
    checks = Table("check", "", "detail", box=None, pad_edge=False)
    for check in verification.checks:
        checks.add_row(check.name, "[green]pass[/]" if check.passed else "[red]FAIL[/]", check.detail)
    console.print(checks)
    period = verification.control_period_ms
    against = "" if period is None else f", control period {period:.0f} ms"
    times = Table("device", "threads", "p50", "p95", "p99", "in time", box=None, pad_edge=False)
    times.title, times.title_justify = f"latency of one call in ms{against}", "left"
    for latency in verification.latencies:
        figures = (f"{value:.1f}" for value in (latency.p50, latency.p95, latency.p99))
        times.add_row(latency.device, str(latency.threads), *figures, _in_time(latency, verification))
    console.print(times)
    memory = ", ".join(f"{kind} {mebibytes:.0f} MiB" for kind, mebibytes in verification.peak_memory_mib.items())
    console.print(f"peak memory: {memory}", highlight=False)
    console.print("[green]passed[/]" if verification.passed else "[red]failed[/]")


def _in_time(latency: Latency, verification: Verification) -> str:
    if verification.control_period_ms is None or verification.chunk_ms is None:
        return "control rate not known"
    if latency.p99 < verification.control_period_ms:
        return "within a step"
    return "beside a chunk (asynchronous)" if latency.p99 < verification.chunk_ms else "too slow"
