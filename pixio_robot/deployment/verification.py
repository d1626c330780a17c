"""Does an artifact still do what its export promised, and is this machine fast enough for it?

The checks need torch alone; parity with a checkpoint also needs what training needs.
"""

import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixio_robot.deployment.artifact import load_artifact
from pixio_robot.errors import UserError

PARITY_TOLERANCE = {"float32": 1e-5, "float16": 0.02, "bfloat16": 0.1, "int8": 0.3}
"""Largest difference between artifact and eager path by precision, relative to the output's scale where that exceeds 1.

Float32 differs by rounding alone; the others are bounds against a broken conversion, and what an export really lost
stands in its metadata.
"""
_WARM_UP_CALLS = 5


@dataclass(frozen=True)
class Check:
    """One question and its answer."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Latency:
    """Times of single calls, in milliseconds, one observation each."""

    device: str
    threads: int
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True)
class Verification:
    """What was found of an artifact."""

    metadata: dict[str, Any]
    checks: list[Check]
    latencies: list[Latency]
    control_period_ms: float | None
    """Time between two steps; None where the metadata does not say the control rate."""
    chunk_ms: float | None
    """Time that the executed actions of a chunk last, in which the next chunk can be computed beside them."""
    peak_memory_mib: dict[str, float]
    """The process's peak with the artifact and torch in it (`cpu`), and what torch took of a GPU's memory (`cuda`)."""

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)


def verify_artifact(
    path: Path,
    *,
    eager: Callable[[Mapping[str, Any]], tuple[Mapping[str, Tensor], Tensor]] | None = None,
    devices: Sequence[str] | None = None,
    threads: Sequence[int] = (1,),
    calls: int = 100,
) -> Verification:
    """Check an artifact and measure its latency on this machine.

    Args:
        path: The file.
        eager: Gives, for the metadata, fresh observations and what the eager path makes of them; None leaves this out.
        devices: Where to run it; None takes each of its devices that this machine has.
        threads: Numbers of CPU threads to measure with.
        calls: How many calls each measurement takes.

    Raises:
        UserError: The file is no artifact, from another schema, damaged or edited; a device or a number does not fit.
    """
    if calls < 1 or not threads or min(threads) < 1:
        raise UserError("calls and threads must be numbers of at least 1.")
    module, metadata = load_artifact(path)
    tolerance = PARITY_TOLERANCE[metadata["precision"]]
    if devices is None:
        devices = [kind for kind in metadata["devices"] if kind == "cpu" or torch.cuda.is_available()]
    checks = [Check("metadata", True, f"schema {metadata['schema']}, digest matches the file")]
    latencies = []
    for device in devices:
        checks.append(_golden_check(load_artifact(path, device)[0], device, tolerance))
        for number in threads if torch.device(device).type == "cpu" else threads[:1]:
            latencies.append(_latency(path, device, number, calls))
    memory = {"cpu": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10}
    if any(torch.device(device).type == "cuda" for device in devices):
        memory["cuda"] = torch.cuda.max_memory_allocated() / 2**20
    checks.append(_rows_check(module, tolerance))
    if eager is not None:
        checks.append(_parity_check(module, *eager(metadata), tolerance))
    rate, executed = metadata["control_rate_hz"], metadata["executed_actions"]
    period = 1000 / rate if rate else None
    chunk = period * executed if period is not None and executed else period
    if chunk is not None:
        checks.append(_speed_check(latencies, chunk))
    return Verification(metadata, checks, latencies, period, chunk, memory)


def difference_between(got: Tensor, expected: Tensor) -> float:
    """Return the largest difference, relative to the expected values' scale where that exceeds 1; nan if any is."""
    if got.shape != expected.shape:
        return float("inf")
    return (got.cpu() - expected.cpu()).abs().max().item() / max(1.0, expected.abs().max().item())


def _golden_check(module: Any, device: str, tolerance: float) -> Check:  # noqa: ANN401 (whatever load_artifact gives)
    with torch.inference_mode():
        difference = difference_between(module(module.golden_observation), module.golden_output)
    detail = f"difference {difference:.1e} (allowed {tolerance:.0e})"
    return Check(f"golden pair on {device}", difference <= tolerance, detail)


def _rows_check(module: Any, tolerance: float) -> Check:  # noqa: ANN401
    """Three observations at once must give what each gives alone."""
    with torch.inference_mode():
        three = {key: torch.cat([value] * 3) for key, value in module.golden_observation.items()}
        difference = difference_between(module(three), torch.cat([module.golden_output] * 3))
    return Check("three observations at once", difference <= tolerance, f"difference {difference:.1e}")


def _parity_check(module: Any, observations: Mapping[str, Tensor], expected: Tensor, tolerance: float) -> Check:  # noqa: ANN401
    rows = range(len(expected))
    with torch.inference_mode():
        got = [module({key: value[row : row + 1] for key, value in observations.items()}) for row in rows]
    difference = difference_between(torch.cat(got), expected)
    detail = f"difference {difference:.1e} on {len(rows)} fresh observations (allowed {tolerance:.0e})"
    return Check("parity with the checkpoint", difference <= tolerance, detail)


def _speed_check(latencies: Sequence[Latency], chunk_ms: float) -> Check:
    best = min(latencies, key=lambda latency: latency.p99)
    detail = f"p99 {best.p99:.1f} ms on {best.device}, {best.threads} thread(s); a chunk lasts {chunk_ms:.0f} ms"
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
