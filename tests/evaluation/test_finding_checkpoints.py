"""A checkpoint is found by its run: by folder, by name, or as the newest."""

import os
from pathlib import Path

from pytest import mark, raises
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.evaluation.checkpoints import find_checkpoint


def write_run(folder: Path, number: int, steps: tuple[int, ...], best: int | None = None) -> None:
    for step in steps:
        (folder / "checkpoints" / f"{step:06d}" / "pretrained_model").mkdir(parents=True)
        (folder / "checkpoints" / f"{step:06d}" / "pretrained_model" / "config.json").write_text("{}")
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    if best is not None:
        (folder / "checkpoints" / "best").symlink_to(f"{best:06d}")
    (folder / "config.yaml").write_text("")
    os.utime(folder / "config.yaml", (number, number))


@mark.parametrize(
    ("given", "found"),
    [
        ("latest", "new/checkpoints/000005"),
        ("old", "old/checkpoints/000010"),
        ("out/train_policy/old", "old/checkpoints/000010"),
    ],
)
def test_runs_stand_for_the_checkpoint_that_they_measured(tmp_path: Path, monkeypatch, given: str, found: str) -> None:
    monkeypatch.chdir(tmp_path)
    runs = Path("out", "train_policy")
    write_run(runs / "old", 1, (5, 10))
    write_run(runs / "new", 2, (5, 10), best=5)
    console = Console(record=True, width=200, quiet=False)
    checkpoint = find_checkpoint(Path(given), Path("out"), console)
    assert checkpoint == runs / found / "pretrained_model"
    assert str(checkpoint) in console.export_text()


def test_what_is_no_run_is_left_to_the_reader_and_a_run_without_checkpoint_is_named(tmp_path: Path) -> None:
    console = Console(quiet=True)
    assert find_checkpoint(tmp_path / "pretrained_model", tmp_path, console) == tmp_path / "pretrained_model"
    with raises(UserError, match="There is no run in .*train_policy"):
        find_checkpoint(Path("latest"), tmp_path, console)
    write_run(tmp_path / "train_policy" / "begun", 1, ())
    with raises(UserError, match="has no checkpoint yet"):
        find_checkpoint(Path("begun"), tmp_path, console)
