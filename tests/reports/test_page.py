import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from pixio_robot.common.storage.files import write_json
from pixio_robot.evaluation.record import Crash, Episode, EvaluationRecord
from pixio_robot.reports.charts import CURVE
from pixio_robot.reports.page import write_report
from pixio_robot.reports.videos import write_rollout_video

HOSTILE = "<script>alert('x')</script>"
VOID_TAGS = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """The page's tags with attributes, its text, and whether every tag that opens also closes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID_TAGS:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + " "

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def ids(self) -> set[str]:
        return {attributes["id"] for _, attributes in self.tags if "id" in attributes}


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run folder with everything, among it text that would break a careless page."""
    run_dir = tmp_path / "train_policy" / "2025-11-23_02-10-11"
    (run_dir / "evaluation" / "videos").mkdir(parents=True)
    (run_dir / "pictures").mkdir()
    frames = [{"front": np.full((32, 32, 3), 10 * step, np.uint8)} for step in range(8)]
    episodes = []
    for index in range(20):
        seed, success = 100000 + index, index not in (3, 5)
        video = f"videos/{seed}.mp4" if index < 8 else None
        if video:
            write_rollout_video(run_dir / "evaluation" / video, frames, 10)
        episodes.append(Episode(seed, success, 30 + index, 1.5, 0.5, video, HOSTILE if index == 5 else None))
    EvaluationRecord(
        episodes=tuple(episodes),
        env={"type": "pixio_toy", "task": f"Push {HOSTILE}"},
        render_profile="fast",
        versions={},
        checkpoint=f"checkpoints/{HOSTILE}",
        seconds=10.0,
        workers=2,
        crashes=(Crash(100005, 1, HOSTILE), Crash(100005, 2, HOSTILE)),
    ).save(run_dir / "evaluation" / "evaluation.json")
    lines = [{"phase": "demonstrations", "event": "finished", "seconds": 104.2}]
    lines += [{"phase": "training", "step": step, "loss": 2.0**-step, "lr": 0.001 * step} for step in range(20)]
    lines += [{"phase": "training", "event": "finished", "seconds": 61.0}]
    cut_off = '{"phase": "eval'
    (run_dir / "log.jsonl").write_text("\n".join([*map(json.dumps, lines), cut_off]))
    for name in ("demonstrations.png", "reconstruction_step_100.png"):
        Image.new("RGB", (64, 32), "teal").save(run_dir / "pictures" / name)
    (run_dir / "config.yaml").write_text(f"encoder: tiny  # {HOSTILE}\n")
    write_json(run_dir / "environment.json", {"torch": "2.11.0", "cpu": HOSTILE})
    return run_dir


def report(run_dir: Path) -> Path:
    return write_report(run_dir, EvaluationRecord.load(run_dir / "evaluation" / "evaluation.json").as_json())


def curves(page: Page) -> dict[str, np.ndarray]:
    """The lines of the page's charts by their captions, (points, 2) in the units of SVG."""
    lines = {}
    for image in page.all("img"):
        if image.get("class") == "chart":
            svg = ElementTree.fromstring(base64.b64decode(image["src"].removeprefix("data:image/svg+xml;base64,")))
            path = svg.find(f".//*[@id='{CURVE}']/{{http://www.w3.org/2000/svg}}path")
            assert path is not None
            points = re.findall(r"[ML] (\S+) (\S+)", path.attrib["d"])
            lines[image["alt"]] = np.array(points, float)
            text = "".join(svg.itertext())
            assert "training step" in text
            assert image["alt"].partition(" ·")[0].lower() in text
    return lines


def test_the_page_says_what_the_run_found(run_dir: Path) -> None:
    path = report(run_dir)
    assert path == run_dir / "report.html"
    page = Page(path)
    assert page.ids() == {
        "success",
        "rollouts",
        "phases",
        "curves",
        "demonstrations",
        "pictures",
        "episodes",
        "config",
        "versions",
    }
    text = " ".join(page.text.split())
    # 18 of 20 at 95 %: 0.6990 to 0.9721 (scipy.stats.binomtest(18, 20).proportion_ci(method="wilson")).
    assert "90 %" in text
    assert "18 of 20 episodes" in text
    assert "69.9–97.2 %" in text
    (fill,) = [tag for tag in page.all("div") if tag.get("class") == "fill"]
    (interval,) = [tag for tag in page.all("div") if tag.get("class") == "interval"]
    assert fill["style"] == "width:90.00%"
    assert interval["style"] == "left:69.90%;right:2.79%"
    assert "Demonstrations 1 min 44 s" in text
    assert "Training 1 min 1 s" in text
    assert "Total 2 min 45 s" in text
    assert list(curves(page)) == ["Loss · training", "Learning rate · training"]
    assert "Reconstruction step 100" in text
    assert "torch 2.11.0" in text
    assert all(str(100000 + index) in text for index in range(20))
    assert "2025-11-23 02:10:11" in text


def test_videos_play_in_the_page_failures_first(run_dir: Path) -> None:
    page = Page(report(run_dir))
    videos = page.all("video")
    assert len(videos) == 6
    assert all({"autoplay", "muted", "loop", "controls"} <= video.keys() for video in videos)
    first = base64.b64decode(videos[0]["src"].removeprefix("data:video/mp4;base64,"))
    assert first == (run_dir / "evaluation" / "videos" / "100003.mp4").read_bytes()


def test_a_large_video_is_linked(run_dir: Path) -> None:
    large = run_dir / "evaluation" / "videos" / "100003.mp4"
    large.write_bytes(large.read_bytes() + bytes(2_000_000))
    path = report(run_dir)
    assert Page(path).all("video")[0]["src"] == "evaluation/videos/100003.mp4"
    assert path.stat().st_size < 1_000_000


def test_curves_fall_from_left_to_right(run_dir: Path) -> None:
    page = Page(report(run_dir))
    lines = curves(page)
    loss, learning_rate = lines["Loss · training"], lines["Learning rate · training"]
    assert len(loss) == len(learning_rate) == 20
    assert (np.diff(loss[:, 0]) > 0).all()
    # SVG counts y downwards. Halving every step is a straight line on the logarithmic axis.
    drops = np.diff(loss[:, 1])
    assert (drops > 0).all()
    assert np.ptp(drops) < 0.01
    rises = np.diff(learning_rate[:, 1])
    assert (rises < 0).all()
    assert np.ptp(rises) < 0.01


def test_a_long_curve_is_averaged(run_dir: Path) -> None:
    lines = [json.dumps({"phase": "training", "step": step, "loss": float(step % 2)}) for step in range(960)]
    (run_dir / "log.jsonl").write_text("\n".join(lines))
    (loss,) = curves(Page(report(run_dir))).values()
    assert len(loss) == 240
    assert np.ptp(loss[:, 1]) == 0


def test_a_resumed_run_shows_each_step_once_and_all_its_time(run_dir: Path) -> None:
    with (run_dir / "log.jsonl").open("a") as log:
        log.write("\n")
        for step in range(10, 30):
            log.write(json.dumps({"phase": "training", "step": step, "loss": 1.0, "lr": 0.0}) + "\n")
        log.write(json.dumps({"phase": "training", "event": "finished", "seconds": 9.0}) + "\n")
    page = Page(report(run_dir))
    assert len(curves(page)["Loss · training"]) == 30
    assert "Training 1 min 10 s" in " ".join(page.text.split())


def test_text_is_text(run_dir: Path) -> None:
    page = Page(report(run_dir))
    assert not page.all("script")
    assert page.text.count(HOSTILE) >= 6


def test_nothing_comes_from_the_network(run_dir: Path) -> None:
    page = Page(report(run_dir))
    sources = [tag[name] for _, tag in page.tags for name in ("src", "href") if name in tag]
    assert sources
    assert all(source.startswith("data:") for source in sources)
    assert not page.all("link")


def test_any_part_may_be_missing(run_dir: Path, tmp_path: Path) -> None:
    empty = tmp_path / "train_policy" / "empty"
    empty.mkdir()
    page = Page(write_report(empty))
    assert page.ids() == {"success"}
    assert "no evaluation yet" in page.text
    (run_dir / "log.jsonl").unlink()
    (run_dir / "evaluation" / "videos" / "100003.mp4").unlink()
    page = Page(report(run_dir))
    assert not {"phases", "curves"} & page.ids()
    assert len(page.all("video")) == 6


def test_the_header_says_what_was_trained_on_what(tmp_path: Path) -> None:
    encoder = "{name: tiny, weights: /a/b.pt, mode: frozen}"
    config = f"{{policy: {{type: pixio_act}}, encoder: {encoder}, seed: 3, demos: {{root: /x/reach}}}}"
    (tmp_path / "config.yaml").write_text(config)
    write_json(tmp_path / "environment.json", {"git_commit": "0123456789abcdef-dirty"})
    header = "pixio_act on tiny, b.pt weights, frozen · reach · seed 3 · commit 0123456789-dirty"
    assert header in write_report(tmp_path).read_text()
    for damaged in ("[1]", "policy: 3", "{{{"):
        (tmp_path / "config.yaml").write_text(damaged)
        assert write_report(tmp_path).is_file()


def test_a_pretraining_shows_its_loss_at_the_top_and_pictures_pixel_by_pixel(tmp_path: Path) -> None:
    run = tmp_path / "pretrain_encoder" / "small"
    (run / "reconstructions").mkdir(parents=True)
    Image.new("RGB", (40, 20)).save(run / "reconstructions" / "000020.png")
    config = "{pretraining: {variant: tiny, start_from: /x/w.pt, seed: 3}, images: {kind: folder, path: /y/photos}}"
    (run / "config.yaml").write_text(config)
    entries = [{"phase": "pretraining", "step": step, "loss": 1 / step} for step in (1, 20)]
    (run / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    page = Page(write_report(run))
    assert "loss" in page.ids() and "success" not in page.ids() and "no evaluation yet" not in page.text
    assert "loss after 20 steps, 1 after 1: mean squared error" in page.text and "0.05" in page.text
    assert "tiny · images: folder · photos · from w.pt · seed 3" in page.text
    assert "in-pixels" in [figure.get("class") for figure in page.all("figure")]
    assert "After 20 steps: images, what the encoder sees" in page.text
