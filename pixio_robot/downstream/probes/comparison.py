"""Probes of several encoders over several splits: record, table and picture."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from pixio_robot.common.files import write_json
from pixio_robot.common.progress import phase_progress
from pixio_robot.downstream.probes.features import ProbeFeatures, probe_tokens
from pixio_robot.downstream.probes.scenes import ProbeScenes, split_groups
from pixio_robot.downstream.probes.tasks import HIGHER_IS_BETTER, ProbeResult, probe
from pixio_robot.encoders import EncoderConfig
from pixio_robot.reports.charts import save_figure

GUESS = "guess"  # the row without an encoder
# Field of ProbeResult, heading, unit, factor.
_COLUMNS = (
    ("object_position_cm", "object position", "cm", 1),
    ("gripper_position_cm", "gripper position", "cm", 1),
    ("gripper_orientation_deg", "gripper orientation", "°", 1),
    ("depth_delta1", "depth δ1", "%", 100),
    ("segmentation_miou", "segmentation mIoU", "%", 100),
)


def compare_encoders(
    encoders: Mapping[str, EncoderConfig],
    scenes: ProbeScenes,
    seeds: Sequence[int],
    console: Console,
    pose_readout: str = "flatten",
) -> dict[str, Any]:
    """Probe every encoder on the same splits of the same scenes.

    Args:
        encoders: One row each, by label.
        scenes: Labelled frames that no encoder was trained on.
        seeds: One split of the scenes for each.
        console: Where progress is shown.
        pose_readout: Name of the readout from which positions and orientation are told.

    Returns:
        Plain values: frames, seeds, readout, and per row the encoder and, per probe, mean, deviation and every seed's value.

    Raises:
        UserError: See `readout` and `VisionEncoder`.
    """
    splits = [split_groups(scenes.group_N, seed) for seed in seeds]
    rows = []
    with phase_progress(console) as progress:
        configs: dict[str, EncoderConfig | None] = {GUESS: None, **encoders}
        for label, config in configs.items():
            encoded = len(scenes.frames_NHWC) if config is not None else 0
            bar = progress.add_task(label, total=encoded + len(seeds), note="encoding")
            features: ProbeFeatures | None = None
            if config is not None:
                tokens = probe_tokens(config, scenes, lambda frames, bar=bar: progress.advance(bar, frames))
                features = ProbeFeatures(tokens, pose_readout)
            results = []
            for split in splits:
                progress.update(bar, note="fitting")
                results.append(probe(features, scenes, split))
                progress.advance(bar)
            progress.update(bar, note="")
            rows.append({"label": label, "encoder": config and asdict(config), "probes": _summary(results)})
    return {
        "frames": len(scenes.frames_NHWC),
        "seeds": list(seeds),
        "pose_readout": pose_readout,
        "classes": scenes.class_names,
        "rows": rows,
    }


def _summary(results: list[ProbeResult]) -> dict[str, dict[str, Any]]:
    summary = {}
    for name, *_ in _COLUMNS:
        values = [getattr(result, name) for result in results]
        known = not any(math.isnan(value) for value in values)
        summary[name] = {
            "mean": statistics.mean(values) if known else None,
            "deviation": statistics.stdev(values) if known and len(values) > 1 else None,
            "values": values if known else None,
        }
    return summary


def print_comparison(record: dict[str, Any], console: Console) -> None:
    """Print mean ± standard deviation over seeds, the best of a column in bold."""
    table = Table(title=f"Frozen linear probes, {record['frames']} frames, {len(record['seeds'])} splits")
    table.add_column("encoder", overflow="fold")
    for name, heading, unit, _ in _COLUMNS:
        arrow = "↑" if name in HIGHER_IS_BETTER else "↓"
        title = "\n".join([*heading.split(), f"{unit} {arrow}"])
        table.add_column(title, justify="right", overflow="fold")
    best = {name: _best(record, name) for name, *_ in _COLUMNS}
    for row in record["rows"]:
        cells = [_cell(row["probes"][name], factor, row["label"] == best[name]) for name, _, _, factor in _COLUMNS]
        table.add_row(row["label"], *cells)
    console.print(table)


def _best(record: dict[str, Any], name: str) -> str | None:
    means = {row["label"]: row["probes"][name]["mean"] for row in record["rows"]}
    known = {label: mean for label, mean in means.items() if mean is not None}
    if not known:
        return None
    return (max if name in HIGHER_IS_BETTER else min)(known, key=lambda label: known[label])


def _cell(value: dict[str, Any], factor: float, best: bool) -> str:
    if value["mean"] is None:
        return "–"
    deviation = "" if value["deviation"] is None else f" ± {factor * value['deviation']:.1f}"
    text = f"{factor * value['mean']:.1f}{deviation}"
    return f"[bold]{text}[/bold]" if best else text


def save_comparison_picture(record: dict[str, Any], file: Path) -> None:
    """Draw bars with deviations, one panel per probe, as PNG."""
    labels = [row["label"] for row in record["rows"]]
    figure = Figure(figsize=(2.9 * len(_COLUMNS), 1.2 + 0.36 * len(labels)), layout="constrained")
    for index, (name, heading, unit, factor) in enumerate(_COLUMNS):
        axes = figure.add_subplot(1, len(_COLUMNS), index + 1)
        probes = [row["probes"][name] for row in record["rows"]]
        means = [factor * (probe["mean"] or 0.0) for probe in probes]
        deviations = [factor * (probe["deviation"] or 0.0) for probe in probes]
        best = _best(record, name)
        colours = ["#2f6feb" if label == best else "#b9c4d6" for label in labels]
        axes.barh(labels, means, xerr=deviations, color=colours, error_kw={"elinewidth": 1, "capsize": 2})
        axes.invert_yaxis()
        better = "higher" if name in HIGHER_IS_BETTER else "lower"
        axes.set_title(f"{heading}, {unit}\n({better} is better)", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        if index:
            axes.set_yticklabels([])
    save_figure(figure, file)


def save_comparison(record: dict[str, Any], folder: Path) -> None:
    """Write `probes.json` and `probes.png`."""
    write_json(folder / "probes.json", record)
    save_comparison_picture(record, folder / "probes.png")
