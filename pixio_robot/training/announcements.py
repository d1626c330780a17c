"""What the main job says on the terminal: what it trains, what it leaves out, how it went and what comes next."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.configs import PreTrainedConfig
from rich.console import Console

from pixio_robot.common.commands import as_called_here
from pixio_robot.common.memory import PeakMemory
from pixio_robot.common.still_dimensions import still_dimensions
from pixio_robot.demos import DemoStore
from pixio_robot.demos.store.layout import INTERVENTION
from pixio_robot.demos.windows.sampling import imitated_ranges
from pixio_robot.encoders import VisionEncoder
from pixio_robot.engine.run_log import RunLog
from pixio_robot.evaluation.checkpoints import run_information
from pixio_robot.training.config import PolicyJob


def say_sizes(job: PolicyJob, policy: torch.nn.Module, encoder: VisionEncoder, log: RunLog) -> None:
    """Say what is trained, how large the encoder sees frames, and how checkpoints keep its weights."""
    trainable = sum(parameter.numel() for parameter in policy.parameters() if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in policy.parameters())
    _say(log.console, f"{job.policy['type']} on {job.encoder.name}: {trainable:,} of {total:,} parameters trainable")
    reference = encoder.reference()
    kept = f"named in checkpoints by their hash {reference.hash}" if reference else "kept in every checkpoint"
    _say(log.console, f"encoder weights ({job.encoder.weights}) are {kept}")
    config: Any = policy.config
    for key, feature in config.image_features.items():
        given = (int(feature.shape[-2]), int(feature.shape[-1]))
        (height, width), seen = encoder.preprocess.resized(*given), encoder.preprocess.seen(*given)
        if seen != given:
            filled = "" if seen == (height, width) else f" and filled up to {seen[0]}×{seen[1]}"
            _say(
                log.console,
                f"{key}: frames of {given[0]}×{given[1]} px are resized to {height}×{width}{filled}, their aspect kept, "
                f"in training and on the robot (encoder.image_size={encoder.config.image_size})",
            )
    log.write("policy", event="built", trainable_parameters=trainable, parameters=total)


def say_unused(config: PreTrainedConfig, store: DemoStore, num_episodes: int | None, console: Console) -> None:
    """Say which features the policy does not read, and which numbers of the demonstrations stand still."""
    unread = sorted(
        store.features.keys() - {*(config.input_features or ()), *(config.output_features or ()), INTERVENTION}
    )
    if unread:
        _say(console, f"not read by the policy: {', '.join(unread)}")
    if INTERVENTION in store.features:
        n_steps = int(store.episode_ends[:num_episodes][-1])
        n_imitated = int(np.diff(imitated_ranges(store, num_episodes)).sum())
        _say(
            console,
            f"{n_steps - n_imitated:,} of {n_steps:,} steps are seen and not imitated: nobody demonstrated in them",
        )
    read = {key: value for key, value in store.statistics(num_episodes).items() if key != INTERVENTION}
    for key, still in still_dimensions(read).items():
        names = store.names.get(key, [])
        named = ", ".join(names[one] if one < len(names) else str(one) for one in still)
        _say(console, f"{key}: {named} stands still in the demonstrations; its normalisation has a floor")


def say_start(checkpoint: Path, store: DemoStore, console: Console) -> None:
    """Say which checkpoint a training starts from, and whether it learnt at another rate."""
    _say(console, f"starting from {checkpoint}")
    trained = run_information(checkpoint)
    rate = (trained.get("env") or trained).get("fps")
    if rate not in (None, store.fps):
        _say(
            console,
            f"it learnt at {rate} Hz, and the demonstrations have {store.fps} steps a second, so that actions now act for "
            f"another time; if they were made at {rate} Hz, too, their file says it wrongly (lerobot-rollout writes "
            f"--dataset.fps, whatever --fps it drives at)",
        )


def say_result(summary: str, log: RunLog, memory: PeakMemory, report: Path, checkpoint: Path, rolled_out: bool) -> None:
    """Say how the run went, where everything is, and what comes next, as commands.

    Args:
        summary: The result.
        log: Of the run.
        memory: Its peak.
        report: The page.
        checkpoint: The one that was measured.
        rolled_out: Whether a simulation stands for the data.
    """
    console = log.console
    console.rule("[bold]Result", align="left", style="dim")
    console.print(f"[bold green]{summary}", highlight=False, soft_wrap=True)
    times = ", ".join(f"{name.replace('_', '-')} {seconds:.0f} s" for name, seconds in log.phase_seconds.items())
    console.print(f"time       {times}; {sum(log.phase_seconds.values()) / 60:.1f} min together", highlight=False)
    console.print(f"memory     {memory.peak_bytes / 2**30:.1f} GiB at the peak, all processes", highlight=False)
    _say(console, f"checkpoint {checkpoint}")
    _say(console, f"report     {report}")
    console.rule("[bold]What comes next", align="left", style="dim")
    for what, command in next_steps(checkpoint, report.parent, rolled_out):
        _say(console, as_called_here(f"{what}\n  uv run {command}"))


def next_steps(checkpoint: Path, run_dir: Path, rolled_out: bool) -> list[tuple[str, str]]:
    """Return what can be done with a run, in words and as the command that follows `uv run`."""
    checkpoint_, artifact = shlex.quote(str(checkpoint)), shlex.quote(str(run_dir / "policy.pt"))
    steps = [("open the report", f"python -m webbrowser {shlex.quote(str(run_dir / 'report.html'))}")]
    if rolled_out:
        looks = "'perturbations=[light,camera,table_texture]'"
        steps.append(
            (
                "see what other light, cameras and textures do to it",
                f"scripts/evaluate_policy.py checkpoint={checkpoint_} {looks}",
            ),
        )
    steps.append(
        ("compare it with other runs", f"scripts/compare_runs.py 'runs=[{run_dir.parent}]'"),
    )
    steps.append(("make it one file for a robot", f"scripts/export.py checkpoint={checkpoint_} output={artifact}"))
    if rolled_out:
        steps.append(("let that drive the simulated robot", f"scripts/run_policy.py artifact={artifact}"))
    else:
        robot = "robot=lerobot robot.type=so101_follower +robot.port=…"
        steps.append(
            ("see what it would send to an arm", f"scripts/run_policy.py artifact={artifact} {robot} dry_run=true"),
        )
    return steps


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True, markup=False)
