"""Checkpoints that a disk has no room for."""

from pathlib import Path

import torch
from forked import mount_small_disk, run_forked
from pytest import raises

from pixio_robot.common.errors import UserError
from pixio_robot.engine.checkpoints import Checkpoints
from pixio_robot.engine.processes import Processes


def save_more_than_fits(folder: Path) -> None:
    mount_small_disk(folder)  # 400 KiB
    checkpoints = Checkpoints(folder / "checkpoints", Processes(0, 1, "none", torch.device("cpu")), 2, None)
    checkpoints.save(1, {"small": torch.ones(10)}, {"identity": {}}, {}, None)
    checkpoints.save(2, {"large": torch.ones(200_000)}, {"identity": {}}, {}, None)
    with raises(UserError, match="cannot be written.*older ones stay"):
        checkpoints.wait()
    assert checkpoints.steps() == [1]
    assert not (folder / "checkpoints" / ".unfinished").exists()


def test_the_one_that_fills_the_disk_is_a_sentence_and_the_older_ones_stay(tmp_path: Path) -> None:
    assert run_forked(save_more_than_fits, tmp_path / "disk", timeout=60) == 0
