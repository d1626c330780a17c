"""Does an artifact still do what its export promised, and is this machine fast enough for it?

The checks need torch alone; parity with a checkpoint also needs what training needs.
"""

import resource
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from pixio_robot.common.errors import UserError
from pixio_robot.common.precision import bfloat16_slowdown
from pixio_robot.deployment.artifact import load_artifact

PARITY_TOLERANCE = {"float32": 1e-5, "float16": 0.01, "bfloat16": 0.05, "int8": 0.2}
"""Most that an artifact may differ from the eager path by precision, as `difference_between` measures it.

Float32 differs by rounding alone; the others are bounds against a broken conversion, and what an export really lost
stands in its metadata. For float32, see `tolerance_of`.
"""
ONNX_TOLERANCE = 1e-4
"""As above, of float32 in an ONNX file, which onnxruntime computes with kernels of its own: trained policies differ most where
they switch, as a gripper does.
"""
GPU_TOLERANCE = 0.01
"""Most that a float32 artifact may differ on a GPU: there torch convolves in TF32, which has float16's 10 bits of mantissa.

On an H100, ACT on a ViT, without convolutions, differed by 5e-7, diffusion's U-Net by 3e-4 to 3e-3.
"""
_LEAST_SQUARE = 1e-12  # of an output that is all zero
_WARM_UP_CALLS = 5


class Check(NamedTuple):
    """One question and its answer."""

    name: str
    passed: bool
    detail: str


class Latency(NamedTuple):
    """Times of single calls, in milliseconds, one observation each."""

    device: str
    threads: int
    p50: float
    p95: float
    p99: float


def verify_artifact(
    path: Path,
    console: Console,
    *,
    eager: Callable[[Mapping[str, Any]], tuple[Mapping[str, Tensor], Tensor]] | None = None,
    devices: Sequence[str] | None = None,
    threads: Sequence[int] = (1,),
    calls: int = 100,
) -> bool:
    """Check an artifact, measure its latency on this machine, and print what was found.

    Args:
        path: The file.
        console: Where to print.
        eager: Gives, for the metadata, fresh observations and what the eager path makes of them; None leaves this out.
        devices: Where to run it; None takes each of its devices that this machine has.
        threads: Numbers of CPU threads to measure with.
        calls: How many calls each measurement takes.

    Returns:
        Whether every check passed.

    Raises:
        UserError: The file is no artifact, from another schema, damaged or edited; a device or a number does not fit.
    """
    if calls < 1 or not threads or min(threads) < 1:
        raise UserError("calls and threads must be numbers of at least 1.")
    module, metadata = load_artifact(path)
    precision = metadata["precision"]
    if devices is None:
        devices = [kind for kind in metadata["devices"] if kind == "cpu" or torch.cuda.is_available()]
    checks = [Check("metadata", True, f"schema {metadata['schema']}, digest matches the file")]
    latencies = []
    for device in devices:
        checks.append(golden_check(load_artifact(path, device)[0], device, precision, metadata["form"]))
        for number in threads if torch.device(device).type == "cpu" else threads[:1]:
            latencies.append(_latency(path, device, number, calls))
    # The process's peak with the artifact and torch in it, and what torch took of a GPU's memory.
    memory = f"cpu {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB"
    if any(torch.device(device).type == "cuda" for device in devices):
        memory += f", cuda {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB"
    three = {key: torch.cat([value] * 3) for key, value in module.golden_observation.items()}
    expected = torch.cat([module.golden_output] * 3)
    allowed = tolerance_of(metadata["form"], precision)
    checks.append(_check("three observations at once", _call(module, three), expected, precision, allowed))
    if eager is not None:
        observations, expected = eager(metadata)
        rows = [{key: value[row : row + 1] for key, value in observations.items()} for row in range(len(expected))]
        got = torch.cat([_call(module, row) for row in rows])
        where = f" on {len(rows)} fresh observations"
        checks.append(_check("parity with the checkpoint", got, expected, precision, allowed, where))
    period, chunk = _deadlines(metadata)
    if period is not None:
        slowdown = bfloat16_slowdown() if precision == "bfloat16" else 0.0
        checks.append(speed_check(latencies, chunk, slowdown))
    passed = all(check.passed for check in checks)
    console.print(_title(path, metadata), highlight=False, soft_wrap=True)
    console.print(_check_table(checks), _latency_table(latencies, period, chunk), sep="\n")
    console.print(f"peak memory: {memory}", highlight=False)
    console.print("[green]passed[/]" if passed else "[red]failed[/]")
    return passed


def _deadlines(metadata: Mapping[str, Any]) -> tuple[float | None, float]:
    """Return the milliseconds between two steps (None if unknown), and those that a chunk's executed actions last."""
    rate = metadata["control_rate_hz"]
    return (1000 / rate, 1000 / rate * (metadata["executed_actions"] or 1)) if rate else (None, 0.0)


def difference_between(got: Tensor, expected: Tensor, precision: str) -> float:
    """Return how far an output lies from the expected one; nan if any number is.

    In float32 the largest difference, relative to the expected values' scale where that exceeds 1. In the reduced
    precisions the differences' root mean square over that of the expected values: where a policy switches, as a gripper
    does, the rounding of its encoder may move the switch by a step, and the largest difference is then the whole switch.
    """
    if got.shape != expected.shape:
        return float("inf")
    got, expected = got.cpu(), expected.cpu()
    if precision == "float32":
        return (got - expected).abs().max().item() / max(1.0, expected.abs().max().item())
    return ((got - expected).square().mean() / expected.square().mean().clamp_min(_LEAST_SQUARE)).sqrt().item()


def tolerance_of(form: str, precision: str) -> float:
    """Return how much an artifact of a form may differ from the eager path.

    Measured in float32 on an episode of Lift with policies that the main job trained (`scripts/export.py` prints it of every
    file): TorchScript and `.pt2` 1e-7 to 5e-7 (ACT twice, BC; diffusion as TorchScript), ONNX 7e-7 (BC), 5e-6 and 1.2e-5 (ACT),
    and 3.4e-5 in an earlier ACT. Each bound is several times the largest of its form.
    """
    return ONNX_TOLERANCE if (form, precision) == ("onnx", "float32") else PARITY_TOLERANCE[precision]


def largest_difference(got: Tensor, expected: Tensor, kind: str, names: Sequence[str] | None = None) -> str:
    """Say which number of a policy's chunk (N, H, A) or an encoder's tokens (N, T, D) differs most, and how much in its unit."""
    if got.shape != expected.shape:
        return f"it gives {tuple(got.shape)} instead of {tuple(expected.shape)}"
    off = torch.nan_to_num((got - expected).abs().cpu(), nan=torch.inf)
    row, place, number = (int(index) for index in np.unravel_index(int(off.argmax()), off.shape))
    name = names[number] if names is not None else f"number {number}"
    part = f"the action for step {place} of a chunk" if kind == "policy" else f"token {place}"
    low, high = expected[..., number].min().item(), expected[..., number].max().item()
    return (
        f"most in {name} of {part}, by {off.max().item():.1e} (observation {row}), where {name} goes from {low:.3g} to "
        f"{high:.3g}"
    )


def golden_check(module: Any, device: str, precision: str, form: str = "torchscript") -> Check:  # noqa: ANN401
    """Does the artifact, loaded on a device, still turn its golden observation into its golden output?"""
    on_gpu = precision == "float32" and torch.device(device).type == "cuda"
    tolerance, where = (GPU_TOLERANCE, " in TF32") if on_gpu else (tolerance_of(form, precision), "")
    got = _call(module, module.golden_observation)
    return _check(f"golden pair on {device}", got, module.golden_output, precision, tolerance, where)


def _check(name: str, got: Tensor, expected: Tensor, precision: str, tolerance: float, where: str = "") -> Check:
    difference = difference_between(got, expected, precision)
    return Check(name, difference <= tolerance, f"difference {difference:.1e}{where} (allowed {tolerance:.0e})")


@torch.inference_mode()
def _call(module: Any, observation: Mapping[str, Tensor]) -> Tensor:  # noqa: ANN401
    return module(observation)


def speed_check(latencies: Sequence[Latency], chunk_ms: float, slowdown: float = 0.0) -> Check:
    """Is the 99th percentile of the fastest device and number of threads below the time that a chunk lasts?

    Args:
        latencies: At least one.
        chunk_ms: In milliseconds.
        slowdown: Of an artifact in bfloat16: how much longer than float32 it takes on this machine's CPU; above 1, the
            answer says so.
    """
    best = min(latencies, key=lambda latency: latency.p99)
    detail = f"p99 {best.p99:.1f} ms on {best.device}, {best.threads} thread(s); a chunk lasts {chunk_ms:.0f} ms"
    if slowdown > 1 and torch.device(best.device).type == "cpu":
        detail += (
            f"; this processor is {slowdown:.1f} times slower in bfloat16 than in float32: export another precision"
        )
    return Check("fast enough at its best", best.p99 < chunk_ms, detail)


def _latency(path: Path, device: str, threads: int, calls: int) -> Latency:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        module, _ = load_artifact(path, device)  # an ONNX session keeps the number of threads it was loaded with
        times = call_times(lambda: module(module.golden_observation).cpu(), calls)
    finally:
        torch.set_num_threads(before)
    p50, p95, p99 = torch.tensor(times).quantile(torch.tensor([0.5, 0.95, 0.99])).tolist()
    return Latency(device, threads, p50, p95, p99)


def call_times(call: Callable[[], object], calls: int) -> list[float]:
    """Return the milliseconds of each of many calls, after some to warm up, in which TorchScript optimises."""
    times = []
    with torch.inference_mode():
        for number in range(-_WARM_UP_CALLS, calls):
            start = time.perf_counter()
            call()
            if number >= 0:
                times.append(1000 * (time.perf_counter() - start))
    return times


def _title(path: Path, metadata: Mapping[str, Any]) -> str:
    cameras = (
        f"{camera['key'].removeprefix('observation.images.')} {camera['height']}×{camera['width']} "
        f"{camera['colour_order']}"
        for camera in metadata["cameras"]
    )
    what = f"{metadata['policy'] or metadata['kind']} on {metadata['encoder']['name']}"
    return f"{path}: {what}, {metadata['form']}, {metadata['precision']}; {', '.join(cameras)}"


def _check_table(checks: Sequence[Check]) -> Table:
    table = Table("check", "", "detail", box=None, pad_edge=False)
    for check in checks:
        table.add_row(check.name, "[green]pass[/]" if check.passed else "[red]FAIL[/]", check.detail)
    return table


def _latency_table(latencies: Sequence[Latency], period: float | None, chunk: float) -> Table:
    table = Table("device", "threads", "p50", "p95", "p99", "in time", box=None, pad_edge=False, title_justify="left")
    table.title = "latency of one call in ms" + ("" if period is None else f", control period {period:.0f} ms")
    for latency in latencies:
        late = "beside a chunk (asynchronous)" if latency.p99 < chunk else "too slow"
        in_time = "control rate not known" if period is None else "within a step" if latency.p99 < period else late
        figures = (f"{value:.1f}" for value in (latency.p50, latency.p95, latency.p99))
        table.add_row(latency.device, str(latency.threads), *figures, in_time)
    return table
