"""What a run's weights are, for whoever gets them: `model_card.md`, a page in the form of the hub's, made of the run's files."""

import logging
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import yaml

from pixio_robot.common.errors import UserError, printable
from pixio_robot.common.storage.documents import read_yaml
from pixio_robot.common.storage.files import write_text
from pixio_robot.common.storage.json_lines import read_lines
from pixio_robot.encoders.exporting import CARD
from pixio_robot.encoders.pixio import PRETRAINABLE
from pixio_robot.pretraining.probing import KNN, LINEAR
from pixio_robot.reports.page import noted_versions

logger = logging.getLogger(__name__)

_RECENT = 20  # steps of whose losses a mean is stated
_NOT_KNOWN = "not known to this run; whoever shares the weights has to state it"


def write_model_card(folder: Path, phase: str, loss_name: str) -> None:
    """Write the card of a run as far as it has come, from its `config.yaml`, `log.jsonl` and `environment.json`.

    Args:
        folder: Of the run.
        phase: Name of the settings, and of the lines of the log.
        loss_name: What the loss measures.
    """
    try:
        config = read_yaml(folder / "config.yaml")
    except UserError as error:
        logger.warning("left out: %s", error)
        config = {}
    log = [line for line in read_lines(folder / "log.jsonl") if line.get("phase") == phase]
    settings = config.get(phase) if isinstance(config, dict) else None
    settings = settings if isinstance(settings, dict) else {}
    images = images if isinstance(config, dict) and isinstance(images := config.get("images"), dict) else {}
    started = next((line for line in log if line.get("event") == "started"), {})
    losses = {line["step"]: float(line["loss"]) for line in log if "step" in line and "loss" in line}
    variant = str(settings.get("variant"))
    facts = {
        "architecture": f"`{variant}`, a timm model of pixio-robot, {settings.get('image_size')} px",
        "trained by": "distillation"
        if settings.get("teacher")
        else "reconstruction of masked patches (Pixio, arXiv 2512.15715)",
        **_beginnings(variant, settings),
        "images": _described(images, started),
        "licence of the images": _NOT_KNOWN,
        **_course(losses, settings, started),
        "loss": loss_name,
    }
    tags = ["image-feature-extraction", "pixio", "distillation" if settings.get("teacher") else "masked-autoencoder"]
    head = yaml.safe_dump({"library_name": "timm", "tags": tags}, sort_keys=False)
    sections = [f"---\n{head}---\n\n# {variant}: {folder.resolve().name}\n", _table(("", ""), facts.items())]
    if "command" in started:
        sections.append(f"## Command\n\n```\n{printable(shlex.join(map(str, started['command'])))}\n```\n")
    if losses:
        sections.append(_curve(losses, (folder / "curve.png").is_file()))
    probes = [line for line in log if "step" in line and LINEAR in line and KNN in line]
    if probes:
        rows = [(f"{line['step']:,}", f"{100 * line[LINEAR]:.1f} %", f"{100 * line[KNN]:.1f} %") for line in probes]
        asked = (
            f"Accuracy of frozen features on {Path(str(settings.get('probe_images'))).name}, a linear probe and k-NN."
        )
        sections.append(f"## Probes\n\n{asked}\n\n{_table(('step', 'linear probe', 'k-NN'), rows)}")
    sections.append(
        f"## Settings\n\n```yaml\n{yaml.safe_dump({phase: settings, 'images': images}, sort_keys=False)}```\n"
    )
    sections.append(f"## Versions\n\n{_table(('', ''), noted_versions(folder / 'environment.json').items())}")
    write_text(folder / CARD, "\n".join(sections))


def _beginnings(variant: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """Say what other weights went into these, and under which licence those are."""
    found = {}
    if teacher := settings.get("teacher"):
        weights = str(settings.get("teacher_weights"))
        licence = _licence(str(teacher)) if weights.startswith("pretrained") else _NOT_KNOWN
        found |= {"teacher": f"`{teacher}`, {Path(weights).name} weights", "licence of the teacher": licence}
    start = settings.get("start_from")
    found["began from"] = f"`{Path(str(start)).name}`" if start else "random weights"
    if start:
        shipped = Path(str(start)).name == f"{variant}.safetensors" and variant in PRETRAINABLE
        found["licence of what it began from"] = (
            f"{_licence(variant)}, if it is what the name says" if shipped else _NOT_KNOWN
        )
    return found


def _licence(name: str) -> str:
    """Return the licence of an encoder's published weights."""
    cfg = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return (cfg.license if cfg is not None else None) or "not stated"


def _described(images: Mapping[str, Any], started: Mapping[str, Any]) -> str:
    count = started.get("images")
    path = images.get("path")
    named = [Path(str(one)).name for one in ([] if path is None else path if isinstance(path, list) else [path])]
    skipped = len(started.get("skipped_images") or ())
    return ", ".join(
        [
            "a stream" if count is None else f"{count:,}",
            f"{images.get('kind', 'images')}{': ' if named else ''}{', '.join(f'`{name}`' for name in named)}",
            *([f"{skipped} could not be read"] if skipped else []),
        ]
    )


def _course(losses: Mapping[int, float], settings: Mapping[str, Any], started: Mapping[str, Any]) -> dict[str, str]:
    done, batch = max(losses, default=0), settings.get("batch_size")
    batch = batch if isinstance(batch, int) else 0
    return {
        "steps": f"{done:,} of {started.get('steps', 0):,}, {batch} images each, {done * batch:,} views",
        "seed": str(settings.get("seed")),
        "processes": f"{started.get('processes', 1)}, {settings.get('device')}, {settings.get('precision')}",
    }


def _curve(losses: Mapping[int, float], drawn: bool) -> str:
    values = [losses[step] for step in sorted(losses)]
    rows = []
    for tenth in range(1, 11):
        at = max(1, len(values) * tenth // 10)
        some = values[max(0, at - _RECENT) : at]
        rows.append((f"{sorted(losses)[at - 1]:,}", f"{sum(some) / len(some):.4f}"))
    picture = "![Loss of every step](curve.png)\n\n" if drawn else ""
    return f"## Curve\n\n{picture}{_table(('step', f'loss, mean of up to {_RECENT}'), dict.fromkeys(rows))}"


def _table(head: tuple[str, ...], rows: Any) -> str:  # noqa: ANN401 (any rows as long as the head)
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(printable(str(cell)).replace('|', '/') for cell in line)} |\n" for line in lines)
