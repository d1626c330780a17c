"""Runs side by side: what makes a row, which episodes are paired, and the cost."""

import csv
import json
import os
from io import StringIO
from pathlib import Path

import yaml
from pytest import LogCaptureFixture, approx, raises
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.evaluation.comparison.runs import Row, Run, compare_runs
from pixio_robot.evaluation.comparison.runs import find_runs as find_runs_in
from pixio_robot.evaluation.comparison.tables import as_markdown, as_table, picture, save_comparison
from pixio_robot.evaluation.open_loop import HeldOutRecord
from pixio_robot.evaluation.record import Episode, EvaluationRecord

ENV = {"type": "pixio_robosuite", "task": "Lift"}


def find_runs(places: list[Path]) -> list[Run]:
    return find_runs_in(places, places[0])


def write_run(
    folder: Path,
    successes: list[bool],
    *,
    seed: int = 0,
    weights: str = "pretrained",
    steps: int = 100,
    policy: dict | None = None,
    env: dict = ENV,
) -> None:
    config = {
        "encoder": {"name": "pixio_tiny16", "weights": weights, "mode": "frozen"},
        "policy": policy or {"type": "pixio_act", "chunk_size": 4},
        "env": env,
        "trainer": {"steps": steps},
        "evaluation": {"workers": seed + 1},
        "seed": seed,
    }
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    episodes = tuple(
        Episode(seed=100000 + number, success=success, steps=3, total_reward=0.0, seconds=0.1)
        for number, success in enumerate(successes)
    )
    EvaluationRecord(episodes, env, "fast", {}, "somewhere", 1.0, 1).save(folder / "evaluation" / "evaluation.json")
    log = [
        {"phase": "policy", "event": "built", "trainable_parameters": 1_234_567, "parameters": 4_000_000},
        {"phase": "features", "event": "finished", "seconds": 30.0},
        {"phase": "training", "event": "finished", "seconds": 90.0 + 60 * seed},
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))


def test_seeds_are_pooled_and_episodes_paired(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path / f"run_{seed}", [True, True, True, False], seed=seed)
        write_run(tmp_path / f"run_{seed}_random", [False, False, False, True], seed=seed, weights="random")
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "config.yaml").write_text("seed: 0\n")
    ours, random = compare_runs(find_runs([tmp_path]))
    assert (ours.label, random.label) == ("act on pixio_tiny16", "act on random-init pixio_tiny16")
    assert (ours.runs, ours.mean, ours.episodes, ours.p_against_first) == (2, 0.75, 8, None)
    # Wilson's formula for 6 of 8 is 0.4093 to 0.9285; both seeds agree, but episodes drawn within them may all succeed.
    assert ours.ci95 == approx((0.375, 1.0), abs=1e-4)
    # Of eight episodes that differ, six are won by the first: 2 (1 + 8 + 28) / 2^8.
    assert random.p_against_first == approx(74 / 256)
    assert random.shared_episodes == 8
    assert ours.trainable_parameters == 1_234_567
    assert ours.minutes == approx((2.0 + 3.0) / 2)
    text = as_markdown([ours, random])
    assert "| act on random-init pixio_tiny16 | 2 | 25 % (2/8) | 0–62 % | 0.289 (8) | 1.23 M | 2.5 |" in text
    assert as_table([ours, random]).row_count == 2
    save_comparison([ours, random], tmp_path / "out")
    assert (tmp_path / "out" / "comparison.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "out" / "comparison.pdf").read_bytes()[:4] == b"%PDF"
    first, second = csv.DictReader((tmp_path / "out" / "comparison.csv").open())
    assert (first["label"], float(first["mean"]), float(second["ci95_low"])) == (ours.label, 0.75, random.ci95[0])
    assert r"act on pixio\_tiny16 & 2 & 75 \% (6/8)" in (tmp_path / "out" / "comparison.tex").read_text()


def test_runs_on_held_out_episodes_are_paired_by_episode(tmp_path: Path) -> None:
    for name, weights, shift in (("a", "pretrained", 0.0), ("b", "random", 0.2)):
        for seed in (0, 1):
            write_run(tmp_path / f"{name}{seed}", [True], seed=seed, weights=weights)
            (tmp_path / f"{name}{seed}" / "evaluation" / "evaluation.json").unlink()
            errors = [0.1 * one + shift for one in range(1, 5)]
            HeldOutRecord(
                list(range(4)), "x", errors, ["j"], [1.0], [0.1], [[0.1]], {"policy": 0.25}, {"policy": (0.1, 0.4)}, {}
            ).save(tmp_path / f"{name}{seed}" / "held_out.json")
    ours, random = compare_runs(find_runs([tmp_path]))
    assert (ours.measure, ours.mean, ours.episodes) == ("held-out error", approx(0.25), 8)
    assert ours.ci95[0] < 0.25 < ours.ci95[1]
    assert random.p_against_first == approx(2 / 2**8)  # of all signs of eight equal differences, two are as far out
    assert "| held-out error |" in as_markdown([ours, random]) and "45 % (n = 8)" in as_markdown([ours, random])
    # A damaged record is named.
    (tmp_path / "a0" / "held_out.json").write_text("{}")
    with raises(UserError, match="no record of held-out episodes"):
        find_runs([tmp_path / "a0"])


def test_how_it_is_logged_and_kept_is_no_difference(tmp_path: Path) -> None:
    for seed, log_every in ((0, 10), (1, 50)):
        write_run(tmp_path / f"{seed}", [True], seed=seed)
        config = yaml.safe_load((tmp_path / f"{seed}" / "config.yaml").read_text())
        config["trainer"] |= {"log_every": log_every, "checkpoint_every": 10 * log_every}
        (tmp_path / f"{seed}" / "config.yaml").write_text(yaml.safe_dump(config))
    (row,) = compare_runs(find_runs([tmp_path]))
    assert row.label == "act on pixio_tiny16"


def test_runs_are_found_by_name_and_the_newest_as_latest(tmp_path: Path) -> None:
    for number, name in enumerate(("old", "new")):
        write_run(tmp_path / name, [True], steps=number)
        os.utime(tmp_path / name / "config.yaml", (number, number))
    assert [run.folder.name for run in find_runs_in([Path("latest"), Path("old")], tmp_path)] == ["new", "old"]
    with raises(UserError, match="There is no run"):
        find_runs_in([Path("latest")], tmp_path / "nowhere")


def test_the_figure_grows_with_its_rows_and_their_labels() -> None:
    def rows(count: int, label: str = "act on pixio_tiny16") -> list[Row]:
        return [Row(f"{label}, {one}", "success", 1, 0.0, 50, (0.0, 0.07), None, 0, None, 1.0) for one in range(count)]

    few, many = (picture(rows(count)) for count in (2, 40))
    assert many.get_figheight() / 40 > 0.25
    assert few.get_figheight() < 2
    assert picture(rows(2, "a label " * 20)).get_figheight() > few.get_figheight()
    assert {text.get_text() for text in many.axes[0].texts} == {"0 % (0/50)"}


def test_only_seeds_that_both_have_are_paired(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [True, True])
    write_run(tmp_path / "b", [False, False], steps=200)
    write_run(tmp_path / "c", [False, False], steps=200, seed=1)
    write_run(tmp_path / "d", [False, False], steps=200, seed=2, env={**ENV, "perturbation": "light"})
    first, same, other = compare_runs(find_runs([tmp_path / name for name in "abcd"]))
    assert first.label == "act on pixio_tiny16, trainer.steps=100"
    assert same.label == "act on pixio_tiny16, trainer.steps=200"
    assert (same.runs, same.shared_episodes, same.p_against_first) == (2, 2, 0.5)
    assert other.label.endswith("env.perturbation=light")
    assert other.p_against_first is None


def test_fields_of_one_policy_do_not_lengthen_the_label(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [True])
    write_run(tmp_path / "b", [True], policy={"type": "pixio_bc", "chunk_size": 1})
    labels = [row.label for row in compare_runs(find_runs([tmp_path]))]
    assert labels == ["act on pixio_tiny16", "bc on pixio_tiny16"]


def test_what_cannot_be_compared_is_named(tmp_path: Path) -> None:
    with raises(UserError, match="holds no finished run"):
        find_runs([tmp_path])
    write_run(tmp_path / "a", [True])
    write_run(tmp_path / "b", [True])
    with raises(UserError, match="2 runs of the seeds"):
        compare_runs(find_runs([tmp_path]))
    (tmp_path / "b" / "config.yaml").write_text("sources: []\n")
    with raises(UserError, match="not the config of a run"):
        find_runs([tmp_path / "b"])


def test_damaged_runs_and_lines_are_named_and_left_out(tmp_path: Path, caplog: LogCaptureFixture) -> None:
    for name in ("whole", "config", "record", "seed", "deep"):
        write_run(tmp_path / name, [True])
    (tmp_path / "config" / "config.yaml").write_text("encoder: {name: [\n")
    (tmp_path / "seed" / "config.yaml").write_text("{encoder: {}, policy: {}, seed: [1]}\n")
    (tmp_path / "deep" / "config.yaml").write_text("a: " + "[" * 5000)
    record = tmp_path / "record" / "evaluation" / "evaluation.json"
    record.write_text(record.read_text()[:40])
    with (tmp_path / "whole" / "log.jsonl").open("a") as log:
        log.write('{"phase": "training", "event": "finished", "seconds": "many"}\n[1]\n{"phase": "training", "lo\n')
    (run,) = find_runs([tmp_path])
    assert run.folder.name == "whole"
    for named in (
        "config.yaml is damaged",
        "seed",
        "evaluation.json is damaged",
        "nested too deeply",
        "log.jsonl, line",
    ):
        assert named in caplog.text


def test_labels_do_not_drive_the_terminal(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [True], policy={"type": "\x1b]0;mine\x07[bold]act[/nothing]"})
    console = Console(record=True, width=120, force_terminal=True, file=StringIO())
    console.print(as_table(compare_runs(find_runs([tmp_path]))))
    text = console.export_text(styles=True)
    assert "\x1b]0" not in text and "\x07" not in text and "[bold]act[/nothing]" in text
