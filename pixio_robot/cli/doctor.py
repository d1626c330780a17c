"""What this machine can do of what the package does, and what to do about the rest."""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from packaging.requirements import Requirement
from rich.console import Console
from rich.table import Table

from pixio_robot.common.commands import as_called_here
from pixio_robot.common.precision import bfloat16_slowdown

State = Literal["ok", "note", "failed"]

_SPACE_WANTED = 5 * 2**30
"""Bytes that demonstrations, features and checkpoints of some runs take."""
_RENDERING_LIMIT = 300
"""Seconds for a process to import a simulator and render: far more than a slow disk needs."""

# In a process of its own: what fails in OpenGL may take its process along.
_RENDER = """
import time
from pixio_robot.environments import env_config_from
[[env]] = [list(suite.values()) for suite in env_config_from({"type": "pixio_robosuite"}).create_envs(n_envs=1).values()]
env = env.envs[0]
env.reset(seed=0)
started = time.perf_counter()
for _ in range(10):
    env.step(env.action_space.sample() * 0)
print(f"{(time.perf_counter() - started) / 10 * 1000:.0f}")
"""


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        subject: What was looked at.
        state: `failed` keeps the main job from running; a `note` says what is missing or slow.
        text: A sentence, with what to do where something is to be done.
    """

    subject: str
    state: State
    text: str


def examine(output_root: Path) -> Iterator[Finding]:
    """Look at everything that the package relies on; each finding comes when it is known.

    Args:
        output_root: Where runs would go; it need not exist.
    """
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("packages", _packages),
        ("processor", _processor),
        ("GPU", _gpu),
        ("shipped weights", _shipped_weights),
        ("official weights", _official_weights),
        ("simulation", _simulation),
        ("compiler", _compiler),
        ("disk", lambda: _disk(output_root)),
    ]
    for subject, check in checks:
        try:
            yield check()
        except Exception as error:  # a broken installation breaks in any way, and the other checks still help
            yield Finding(subject, "failed", f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}")


def _packages() -> Finding:
    wrong, extras = [], set()
    for text in importlib.metadata.requires("pixio-robot") or ():
        requirement = Requirement(text)
        extra = str(requirement.marker).partition("extra == ")[2].strip("\"'")
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            if extra:
                extras.add(extra)
            else:
                wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} is {version}, {requirement.specifier} is needed")
    if wrong:
        return Finding("packages", "failed", f"{'; '.join(wrong)}: run `uv sync`, or pip install again.")
    found = f"Python {sys.version.partition(' ')[0]}, torch {torch.__version__}"
    if extras:
        names = sorted(extras)
        advice = f"{', '.join(names)} (pip install 'pixio-robot[{','.join(names)}]')"
        return Finding("packages", "note", f"{found}; extras not installed: {advice}.")
    return Finding("packages", "ok", f"{found}, all extras.")


def _processor() -> Finding:
    slowdown = bfloat16_slowdown()
    how = (
        "as OMP_NUM_THREADS says"
        if "OMP_NUM_THREADS" in os.environ
        else "at most; trainings find out how many are fastest"
    )
    cores = f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} ({how})"
    if slowdown > 1:
        return Finding("processor", "note", f"{cores}; bfloat16 is {slowdown:.1f} times slower than float32: leave it.")
    return Finding("processor", "ok", f"{cores}; bfloat16 is {1 / slowdown:.1f} times as fast as float32.")


def _gpu() -> Finding:
    if not torch.cuda.is_available():
        return Finding(
            "GPU",
            "note",
            "none that torch can use: frozen encoders train quickly without, finetuning and ViT-L do not.",
        )
    properties = torch.cuda.get_device_properties(0)
    torch.ones(64, 64, device="cuda").square().sum().item()
    count = torch.cuda.device_count()
    return Finding("GPU", "ok", f"{count} × {properties.name}, {properties.total_memory / 2**30:.0f} GiB.")


def _shipped_weights() -> Finding:
    from pixio_robot.encoders import EncoderConfig, VisionEncoder, weights_hash

    encoder = VisionEncoder(EncoderConfig("pixio_tiny16"))
    return Finding("shipped weights", "ok", f"pixio_tiny16, hash {weights_hash(encoder.backbone)}.")


def _official_weights() -> Finding:
    import timm

    from pixio_robot.encoders import PRETRAINABLE
    from pixio_robot.encoders.hub import cached_snapshot

    sources = {name: timm.get_pretrained_cfg(name) for name in PRETRAINABLE}
    hub_ids = {name: source.hf_hub_id for name, source in sources.items() if source and source.hf_hub_id}
    cached = [name for name, hub_id in hub_ids.items() if cached_snapshot(hub_id)]
    if cached:
        return Finding("official weights", "ok", f"{', '.join(cached)} in the hub's cache.")
    return Finding(
        "official weights",
        "note",
        "none in the hub's cache: encoder=pixio_vitl downloads its own at first use, or give encoder.weights=FILE.",
    )


def _simulation() -> Finding:
    if importlib.util.find_spec("robosuite") is None:
        return Finding("simulation", "failed", "robosuite is not installed: run `uv sync`, or pip install -e envs.")
    try:
        process = subprocess.run(
            [sys.executable, "-c", _RENDER], capture_output=True, text=True, timeout=_RENDERING_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding("simulation", "failed", f"robosuite's Lift rendered nothing within {_RENDERING_LIMIT} s.")
    if process.returncode:
        last = process.stderr.strip().splitlines()[-1:] or [f"ended with exit code {process.returncode}"]
        return Finding("simulation", "failed", last[0].removeprefix("ValueError: ").rstrip(".") + ".")
    milliseconds = process.stdout.strip().splitlines()[-1]
    return Finding("simulation", "ok", f"robosuite's Lift renders, {milliseconds} ms a step with two cameras.")


def _compiler() -> Finding:
    if shutil.which("g++") or shutil.which("clang++"):
        return Finding("compiler", "ok", "found, for compile_blocks=true and the C++ program.")
    return Finding(
        "compiler", "note", "no C++ compiler: compile_blocks=true and the C++ program need g++ (Debian: g++)."
    )


def _disk(output_root: Path) -> Finding:
    folder = output_root.resolve()
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        return Finding("disk", "failed", f"{folder} cannot be written to: set output_root=… to a folder that can.")
    free = shutil.disk_usage(folder).free
    text = f"{free / 2**30:.0f} GiB free for {output_root}"
    if free < _SPACE_WANTED:
        return Finding("disk", "note", f"{text}: some runs take more than {_SPACE_WANTED / 2**30:.0f} GiB.")
    return Finding("disk", "ok", f"{text}.")


def print_examination(findings: Iterator[Finding], console: Console) -> bool:
    """Show findings as they come; return whether the main job can run."""
    marks = {"ok": "[green]✓[/]", "note": "[yellow]·[/]", "failed": "[red]✗[/]"}
    able = True
    for finding in findings:
        table = Table.grid(padding=(0, 1))
        table.add_column(width=1)
        table.add_column(width=16)
        table.add_column(overflow="fold")
        table.add_row(marks[finding.state], finding.subject, finding.text)
        console.print(table)
        able &= finding.state != "failed"
    console.print(
        as_called_here("The main job can run: uv run scripts/train_policy.py")
        if able
        else "The main job cannot run yet: see ✗.",
        highlight=False,
    )
    return able
