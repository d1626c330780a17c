"""One self-contained page about a run, for people: `report.html`."""

import base64
import logging
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2

from pixio_robot.common.errors import UserError
from pixio_robot.common.storage.documents import read_json, read_yaml
from pixio_robot.common.storage.files import is_file_inside, write_text
from pixio_robot.common.storage.json_lines import read_lines, seconds_of_phases
from pixio_robot.reports.charts import line_chart

logger = logging.getLogger(__name__)

_MAX_VIDEOS = 6
# Larger videos are linked by their relative path, so that the page stays quick to open and to send.
_MAX_EMBEDDED_BYTES = 1_500_000
# Key in the log, heading, and whether the axis is logarithmic: a loss falls by ever smaller amounts.
_CURVES = (
    ("loss", "Loss", True),
    ("success_rate", "Success rate", False),
    ("held_out_error", "Held-out error", False),
    ("linear_probe", "Accuracy of a linear probe", False),
    ("knn", "Accuracy by nearest neighbours", False),
    ("lr", "Learning rate", False),
    ("images_per_second", "Images per second", False),
)
# Folders of a pretraining run with one picture per checkpoint, of which the last is shown.
RECONSTRUCTIONS, FEATURES = "reconstructions", "features"

_HIDDEN = (
    "what the encoder sees of them while most patches are hidden, and what the decoder makes of that; pixel by pixel, at the "
    "size that the encoder sees"
)
_CAPTIONS = {
    "demonstration": "The first episode, each camera from its beginning to its end",
    "reconstruction": f"Frames of the first episode, {_HIDDEN}",
    RECONSTRUCTIONS: f"After {{:,}} steps: images, {_HIDDEN}",
    FEATURES: "After {:,} steps, one image a row: the image, its patch features (first three principal components over all "
    "rows as red, green and blue), and where each class token looks in the last block",
}


@dataclass(frozen=True)
class _Phase:
    name: str
    duration: str
    percent: float


@dataclass(frozen=True)
class _Curve:
    title: str
    last: str
    source: str


@dataclass(frozen=True)
class _Picture:
    caption: str
    source: str
    in_pixels: bool = False  # one of the screen for each of its own


@dataclass(frozen=True)
class _Video:
    episode: Mapping[str, Any]
    source: str


def write_report(run_dir: Path, evaluation: Mapping[str, Any] | None = None) -> Path:
    """Build `report.html` from whatever a run folder holds, and return its path.

    Read are `log.jsonl` (durations of phases, training curves), `pictures/*.png` (those named `demonstration…` show
    demonstrations), the last of `reconstructions/*.png` and `features/*.png` (named by their step), `config.yaml` and
    `environment.json`; what is missing is left out. Nothing on the page comes from the network.

    Args:
        run_dir: The run folder.
        evaluation: What its `evaluation/evaluation.json` holds; videos are in the same folder. None without one.
    """
    log = [entry for entry in read_lines(run_dir / "log.jsonl") if "phase" in entry]
    seconds = seconds_of_phases(log)
    pictures = sorted((run_dir / "pictures").glob("*.png"))
    demonstrations = [path for path in pictures if path.name.startswith("demonstration")]
    series = {name: max((run_dir / name).glob("*.png"), default=None) for name in (RECONSTRUCTIONS, FEATURES)}
    versions = noted_versions(run_dir / "environment.json")

    path = run_dir / "report.html"
    render(
        "report.html.j2",
        path,
        title=_title(run_dir, evaluation),
        about=_about(run_dir / "config.yaml", versions),
        job=run_dir.resolve().parent.name,
        date=re.sub(r"_(\d\d)-(\d\d)-(\d\d)$", r" \1:\2:\3", run_dir.resolve().name),
        evaluation=evaluation,
        n_successes=sum(episode["success"] for episode in evaluation["episodes"]) if evaluation else 0,
        videos=_videos(evaluation["episodes"], run_dir / "evaluation") if evaluation else [],
        phases=_phases(seconds),
        total=_duration(sum(seconds.values())),
        curves=_curves(log),
        demonstrations=_pictures(demonstrations),
        pictures=[
            *_pictures(path for path in pictures if path not in demonstrations),
            *(
                _Picture(_CAPTIONS[name].format(int(path.stem)), data_url(path.read_bytes(), "image/png"), True)
                for name, path in series.items()
                if path
            ),
        ],
        held_out=_held_out(run_dir / "held_out.json"),
        loss=_loss(log) if any(series.values()) else None,
        awaits_evaluation=not any(series.values()),
        config=_read_text(run_dir / "config.yaml"),
        versions=versions or (evaluation["versions"] if evaluation else {}),
    )
    return path


def render(template: str, path: Path, **values: Any) -> None:  # noqa: ANN401
    """Fill in a template beside this module and write the page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    write_text(path, environment.get_template(template).render(**values))


def _held_out(file: Path) -> tuple[str, dict[str, float]] | None:
    """Return the verdict on held-out episodes and the error of the policy and of each guess, in per cent; None without one."""
    try:
        record = read_json(file)
        return str(record["summary"]), {str(name): 100 * float(value) for name, value in record["relative"].items()}
    except (UserError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _loss(log: list[dict[str, Any]]) -> tuple[str, str] | None:
    """Return the last loss, and a sentence about it; None where none was logged."""
    losses = [(entry["step"], float(entry["loss"])) for entry in log if "step" in entry and "loss" in entry]
    if not losses:
        return None
    (first_step, first), (step, last) = losses[0], losses[-1]
    meaning = ": mean squared error of hidden pixels, where 1 is a guess of each patch's mean"
    kind = meaning if log[-1].get("phase") == "pretraining" else ""
    return f"{last:.3g}", f"loss after {step:,} steps, {first:.3g} after {first_step:,}{kind}"


def _about(config: Path, versions: Mapping[str, Any]) -> str:
    """Say what was trained on what, as far as a run's config says it: policy, encoder and weights, data, seed, commit."""
    try:
        found = read_yaml(config)
    except UserError:
        return ""
    if not isinstance(found, dict):
        return ""
    policy, encoder, demos = (
        group if isinstance(group := found.get(name), dict) else {} for name in ("policy", "encoder", "demos")
    )
    commit = str(versions.get("git_commit", ""))
    said_commit = [f"commit {commit[:10]}{'-dirty' * commit.endswith('-dirty')}"] if commit else []
    trained = next(
        (group for name in ("pretraining", "distillation") if isinstance(group := found.get(name), dict)), None
    )
    if trained is not None:
        images = group if isinstance(group := found.get("images"), dict) else {}
        start = trained.get("teacher") or trained.get("start_from")
        parts = [str(trained.get("variant") or encoder.get("name")), f"images: {images.get('kind')}"]
        parts += [Path(path).name] if isinstance(path := images.get("path"), str) else []
        parts += [f"{'teacher' if trained.get('teacher') else 'from'} {Path(str(start)).name}"] * bool(start)
        return " · ".join([*parts, f"seed {trained.get('seed')}", *said_commit])
    if not policy:
        return ""
    weights = Path(str(encoder.get("weights"))).name
    data = next((Path(str(demos[key])).name for key in ("root", "repo_id", "path") if demos.get(key)), None)
    parts = [f"{policy.get('type')} on {encoder.get('name')}, {weights} weights, {encoder.get('mode')}"]
    parts.append(data or f"{demos.get('episodes')} demonstrations")
    parts.append(f"seed {found.get('seed')}")
    return " · ".join([*parts, *said_commit])


def _title(run_dir: Path, evaluation: Mapping[str, Any] | None) -> str:
    if evaluation is None:
        return run_dir.resolve().parent.name.replace("_", " ").capitalize()
    return str(evaluation["env"].get("task") or evaluation["env"]["type"])


def _videos(episodes: Iterable[Mapping[str, Any]], folder: Path) -> list[_Video]:
    shown = [
        episode for episode in episodes if "video" in episode and is_file_inside(folder / episode["video"], folder)
    ]
    # Failures first: they are what one wants to understand.
    shown = sorted(shown, key=lambda episode: episode["success"])[:_MAX_VIDEOS]
    return [_Video(episode, source(folder / episode["video"], folder.parent, "video/mp4")) for episode in shown]


def _pictures(paths: Iterable[Path]) -> list[_Picture]:
    return [
        _Picture(
            _CAPTIONS.get(path.stem, re.sub(r"[_-]+", " ", path.stem).capitalize()),
            data_url(path.read_bytes(), "image/png"),
            path.stem == "reconstruction",
        )
        for path in paths
    ]


def source(file: Path, page_folder: Path, kind: str) -> str:
    """Return the address of a file below a page's folder: its content, or, where that is large, its place."""
    if file.stat().st_size > _MAX_EMBEDDED_BYTES:
        return quote(file.relative_to(page_folder).as_posix())
    return data_url(file.read_bytes(), kind)


def data_url(content: bytes, kind: str) -> str:
    """Return a file's content as an address that a page can hold."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _phases(seconds: Mapping[str, float]) -> list[_Phase]:
    longest = max(seconds.values(), default=0.0) or 1.0
    return [
        _Phase(name.replace("_", " ").capitalize(), _duration(spent), 100 * spent / longest)
        for name, spent in seconds.items()
    ]


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _curves(log: list[dict[str, Any]]) -> list[_Curve]:
    curves = []
    for phase in dict.fromkeys(entry["phase"] for entry in log):
        for key, label, logarithmic in _CURVES:
            # A resumed run repeats the steps after its checkpoint: the later line counts.
            points = {
                entry["step"]: float(entry[key])
                for entry in log
                if entry["phase"] == phase and "step" in entry and math.isfinite(entry.get(key, math.nan))
            }
            if len(points) > 1:
                steps = sorted(points)
                values = [points[step] for step in steps]
                title = f"{label} · {str(phase).replace('_', ' ')}"
                chart = line_chart(steps, values, label.lower(), logarithmic=logarithmic)
                curves.append(_Curve(title, f"{values[-1]:.3g}", data_url(chart, "image/svg+xml")))
    return curves


def noted_versions(path: Path) -> Mapping[str, Any]:
    """Return the versions that a run noted; a damaged file is named, and left out."""
    try:
        versions = read_json(path) if path.is_file() else {}
    except UserError as error:
        logger.warning("left out: %s", error)
        return {}
    return versions if isinstance(versions, Mapping) else {}


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
