"""Inspection of a demonstration store from path to files: tables on the terminal, JSON, pictures and a video."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pixio_robot.common.errors import UserError
from pixio_robot.common.progress import progress_bar
from pixio_robot.common.storage.files import explains_full_disk, write_json
from pixio_robot.demos.inspection.findings import DAMAGED, IDLE, KINDS, Finding
from pixio_robot.demos.inspection.inspection import Inspection, inspect_store, open_damaged
from pixio_robot.demos.recorded import check_episode_number
from pixio_robot.demos.store.locations import Location
from pixio_robot.demos.store.store import DemoStore

# What the terminal shows of many; inspection.json has all.
_MAX_DIMENSIONS_LISTED = 16
_MAX_TASKS_LISTED = 5
_MAX_SENTENCES = 10


def run_inspection(
    path: str | Path,
    output: Path | None,
    *,
    episode: int = 0,
    video: bool = True,
    frozen_steps: int | None = None,
) -> Inspection:
    """Look through a store, print what is in it, and write the same with pictures into a folder.

    Args:
        path: A demonstration store: folder, zip file or URL; parts of its data may be damaged.
        output: Folder for `inspection.json`, `lengths.png`, `histograms.png`, `strip.png` and the video;
            `outputs/inspections/<name of the store>` by default.
        episode: The episode of strip and video.
        video: Whether to write the video.
        frozen_steps: See `inspect_store`.

    Raises:
        UserError: There is no store, or none with episodes; the episode does not exist; the folder cannot be made.
    """
    store = open_damaged(path)
    check_episode_number(store.path, episode, store.num_episodes)
    output = output or Path("outputs/inspections") / _name_of(store.path)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot make the folder {output} ({error.strerror}): give another one as output=….") from error
    with progress_bar("episodes", store.num_episodes, Console(stderr=True)) as advance:
        inspection = inspect_store(store, frozen_steps=frozen_steps, advance=advance)
    console = Console()
    print_inspection(inspection, console)
    with explains_full_disk(output, "the store is as it was"):
        files = write_inspection(store, inspection, output, episode, video=video)
    console.print(f"{output}: {', '.join(file.name for file in files)}", highlight=False, markup=False, soft_wrap=True)
    return inspection


def _name_of(location: Location) -> str:
    name = location.rstrip("/").rpartition("/")[2] if isinstance(location, str) else location.resolve().name
    return name.removesuffix(".zip").removesuffix(".zarr").removesuffix(".demos")


def print_inspection(inspection: Inspection, console: Console) -> None:
    """Print features, counts and findings."""
    console.print(Text(str(inspection.path), style="bold"), soft_wrap=True)
    console.print(_feature_table(inspection))
    if inspection.signals:
        console.print(_range_table(inspection))
    counts = Table(box=None, show_header=False, pad_edge=False)
    counts.add_column(style="bold", no_wrap=True)
    counts.add_column(overflow="fold")
    for name, value in _counts(inspection):
        counts.add_row(name, Text(value))
    console.print(counts)
    console.print()
    for kind in KINDS:
        found = [finding for finding in inspection.findings if finding.kind == kind]
        for finding in found[:_MAX_SENTENCES]:
            label, style = ("note", "cyan") if kind == IDLE else (kind.replace("_", " "), "bold red")
            console.print(Text.assemble((label, style), f"  {finding.sentence}"), soft_wrap=True)
        if len(found) > _MAX_SENTENCES:
            console.print(f"… and {len(found) - _MAX_SENTENCES} more like these in inspection.json.", highlight=False)
    n_suspect = sum(finding.kind != IDLE for finding in inspection.findings)
    verdict = f"{n_suspect} finding{'s' * (n_suspect != 1)} that may be damage" if n_suspect else "No sign of damage"
    console.print(f"{verdict} (episodes and steps are counted from 0).", highlight=False)


def _feature_table(inspection: Inspection) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("key", overflow="fold")
    for heading in ("shape", "dtype"):
        table.add_column(heading, no_wrap=True)
    for key, feature in inspection.features.items():
        table.add_row(Text(key), " × ".join(str(side) for side in feature.shape) or "1", feature.dtype)
    return table


def _range_table(inspection: Inspection) -> Table:
    """Lay out a row for each dimension; apart from the shapes, 80 columns are enough."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("values by dimension", overflow="fold")
    for heading in ("min", "mean", "max"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("unit", overflow="fold")
    for key, values_TD in inspection.signals.items():
        table.add_row(Text(key))
        rows = list(zip(*_ranges(values_TD).values(), strict=True))
        names = inspection.names.get(key, [""] * len(rows))
        listed = zip(names, inspection.units[key], rows[:_MAX_DIMENSIONS_LISTED])
        for dimension, (name, unit, row) in enumerate(listed):
            numbers = ("–" if value is None else f"{value:.4g}" for value in row)
            table.add_row(Text(f"  {name or dimension}"), *numbers, Text(unit))
        if len(rows) > _MAX_DIMENSIONS_LISTED:
            table.add_row(f"  … {len(rows) - _MAX_DIMENSIONS_LISTED} more in inspection.json")
    return table


def _counts(inspection: Inspection) -> list[tuple[str, str]]:
    lengths = inspection.lengths
    shortest, median, longest = min(lengths), float(np.median(lengths)), max(lengths)
    seconds = " / ".join(f"{steps / inspection.fps:.1f}" for steps in (shortest, median, longest))
    of_steps = f"{shortest} / {median:g} / {longest} steps, {seconds} s"
    tasks = [f"{task} ({count})" for task, count in inspection.tasks.items()]
    if len(tasks) > _MAX_TASKS_LISTED:
        tasks = [*tasks[:_MAX_TASKS_LISTED], f"… {len(tasks) - _MAX_TASKS_LISTED} more"]
    unknown = len(lengths) - inspection.outcomes_known
    success = f"{inspection.successes} of {inspection.outcomes_known} known" if inspection.outcomes_known else "unknown"
    return [
        ("episodes", f"{len(lengths):,}"),
        ("steps", f"{sum(lengths):,}"),
        ("lengths", f"{of_steps} (min / median / max)"),
        ("tasks", "; ".join(tasks)),
        ("success", success + (f", {unknown} unknown" if unknown and inspection.outcomes_known else "")),
        ("fps", f"{inspection.fps:g}"),
        ("env", _env_words(inspection.attributes.get("env"))),
        *_given_up(inspection.attributes.get("given_up")),
        ("codec", str(inspection.attributes.get("codec", "unknown"))),
        ("on disk", f"{inspection.bytes_on_disk / 1e6:,.1f} MB"),
    ]


def _given_up(words: object) -> list[tuple[str, str]]:
    return [("given up", "; ".join(map(str, words)))] if isinstance(words, list) else []


def _env_words(env: object) -> str:
    if not isinstance(env, dict):
        return "unknown" if env is None else str(env)
    words = [str(env[name]) for name in ("type", "task", "robot") if env.get(name)]
    profile = env.get("render_profile")
    return " ".join(words) + (f" (render profile {profile})" if profile else "")


def _ranges(values_TD: np.ndarray) -> dict[str, list[float | None]]:
    """Return the smallest, mean and largest finite value of each dimension, None where there is none."""
    ranges: dict[str, list[float | None]] = {"min": [], "mean": [], "max": []}
    for column in values_TD.T:
        finite = column[np.isfinite(column)].astype(np.float64)
        for name in ranges:
            ranges[name].append(float(getattr(finite, name)()) if len(finite) else None)
    return ranges


def _described(inspection: Inspection, key: str) -> dict[str, Any]:
    """Return names, units and ranges of a signal."""
    known = {"names": inspection.names.get(key), "units": inspection.units[key]}
    return known | _ranges(inspection.signals[key])


def write_inspection(
    store: DemoStore, inspection: Inspection, folder: Path, episode: int, *, video: bool
) -> list[Path]:
    """Write all files of an inspection into an existing folder.

    Strip and video are left out where the store has no camera, or where the frames of the episode are damaged.

    Returns:
        The files written.
    """
    # Not before the findings are on the terminal: it needs many more libraries, which take seconds to import.
    from pixio_robot.demos.inspection.pictures import save_histograms, save_lengths, save_strip, save_video

    files = [folder / "inspection.json", folder / "lengths.png"]
    write_json(files[0], as_json(inspection))
    save_lengths(inspection.lengths, inspection.fps, files[1])
    if inspection.signals:
        files.append(folder / "histograms.png")
        save_histograms(inspection.signals, inspection.names, inspection.units, files[-1])
    strip_file, video_file = folder / "strip.png", folder / f"episode_{episode:06d}.mp4"
    for earlier in (strip_file, video_file):
        earlier.unlink(missing_ok=True)  # of an earlier inspection, when the frames could be read
    unreadable = {(finding.key, finding.episode) for finding in inspection.findings if finding.kind == DAMAGED}
    if not store.image_keys or any((key, episode) in unreadable for key in store.image_keys):
        return files
    save_strip(store, episode, inspection.fps, strip_file)
    files.append(strip_file)
    if video:
        save_video(store, episode, inspection.fps, video_file)
        files.append(video_file)
    return files


def as_json(inspection: Inspection) -> dict[str, Any]:
    """Return everything but the signals as plain values; what is not known is None."""
    features = {
        key: dataclasses.asdict(feature) | (_described(inspection, key) if key in inspection.signals else {})
        for key, feature in inspection.features.items()
    }
    lengths = inspection.lengths
    return {
        "path": str(inspection.path),
        "episodes": len(lengths),
        "steps": sum(lengths),
        "lengths": {"min": min(lengths), "median": float(np.median(lengths)), "max": max(lengths), "all": lengths},
        "tasks": inspection.tasks,
        "success": {"known": inspection.outcomes_known, "true": inspection.successes},
        "fps": inspection.fps,
        "attributes": inspection.attributes,
        "bytes_on_disk": inspection.bytes_on_disk,
        "features": features,
        "findings": [_finding_json(finding) for finding in inspection.findings],
    }


def _finding_json(finding: Finding) -> dict[str, Any]:
    return dataclasses.asdict(finding) | {"may_be_damage": finding.kind != IDLE}
