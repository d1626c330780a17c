"""`scripts/list.py` says what there is, from what is there."""

from pathlib import Path

import pytest
from forked_scripts import run_script
from rich.table import Table

from pixio_robot.cli import listing
from pixio_robot.cli.jobs import CONFIG_FOLDER
from pixio_robot.common.errors import UserError
from pixio_robot.evaluation.record import Episode, EvaluationRecord


def rows(table: Table) -> list[list[str]]:
    """Return the cells, row by row."""
    columns = [[str(cell) for cell in column.cells] for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def test_encoders_with_parameters_licence_and_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixio_robot.encoders.hub.cached_snapshot", lambda hub_id: hub_id == "facebook/pixio-vitl16")
    table = {row[0]: row[1:] for row in rows(listing.encoders())}
    assert table.keys() == {file.stem for file in (CONFIG_FOLDER / "encoder").glob("*.yaml")}
    assert table["pixio_tiny"] == ["pixio_tiny16", "2.8 M", "apache-2.0", "here, in the package"]
    # arXiv 2512.15715, table 1: 5441 M and 303 M
    assert table["pixio_vit5b"][1:3] == ["5,440.9 M", "fair-noncommercial"]
    assert table["pixio_vit5b"][3].startswith("not here")
    assert table["pixio_vitl"][1:] == ["303.4 M", "fair-noncommercial", "here, in the hub's cache"]
    assert table["mae_tiny"][3].startswith("none")


def test_tasks_with_how_to_choose_them() -> None:
    table = {(row[0], row[1]): row[2:] for row in rows(listing.tasks())}
    choice, robots, profiles = table["pixio_robosuite", "Stack"]
    assert choice == "env=robosuite_stack"
    assert "UR5e" in robots
    assert profiles == "standard, fast, lite"
    assert table["pixio_metaworld", "reach-v3"][0] == "env=metaworld env.task=reach-v3"
    assert table["pixio_pusht", "PushT"][2] == "standard"
    assert len([task for task in table if task[0] == "pixio_metaworld"]) == 50


def test_policies_and_robots() -> None:
    assert {row[0]: row[1] for row in rows(listing.policies())} == {
        "act": "pixio_act",
        "bc": "pixio_bc",
        "diffusion": "pixio_diffusion",
    }
    robots = {row[0]: row[1] for row in rows(listing.robots())}
    assert robots["robot=sim"] == ""
    assert robots["robot=lerobot robot.type=so101_follower"] == "+robot.port="


def test_runs_finished_and_not(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There are no runs in"):
        listing.runs(tmp_path)
    for name in ("done", "broken_off"):
        (tmp_path / "train_policy" / name).mkdir(parents=True)
        (tmp_path / "train_policy" / name / "config.yaml").write_text("seed: 0\n")
    (tmp_path / "train_policy" / "done" / "report.html").write_text("")
    (tmp_path / "train_policy" / "done" / "evaluation").mkdir()
    episodes = tuple(Episode(seed, seed > 0, 9, 1.0, 1.0) for seed in range(4))
    record = EvaluationRecord(episodes, {"type": "a"}, None, {}, "checkpoint", 1.0, 1)
    record.save(tmp_path / "train_policy" / "done" / "evaluation" / "evaluation.json")
    (tmp_path / "train_policy" / "broken_off" / "log.jsonl").write_text('{"step": 10}\n{"step": 20}\n{"st')
    table = {Path(row[0]).name: row[1:] for row in rows(listing.runs(tmp_path))}
    assert table["done"][0] == "finished"
    assert table["done"][1].startswith("75 % success (3 of 4 episodes")
    assert table["broken_off"] == ["unfinished, step 20", "–"]


def test_piped_rows_are_whole_and_a_wrong_word_gets_the_nearest(tmp_path: Path) -> None:
    done = run_script("list.py", "encoders", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (row,) = [line for line in done.stdout.splitlines() if line.split()[:1] == ["siglip_vitb"]]
    assert "vit_base_patch16_siglip_224.v2_webli" in row and "apache-2.0" in row
    wrong = run_script("list.py", "encoder", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "Did you mean 'encoders'?" in wrong.stderr
