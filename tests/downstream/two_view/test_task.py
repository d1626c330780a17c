"""The task as a whole, small: a head learns its own training pairs, goes on where it was stopped, and leaves its pictures."""

import dataclasses
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from lerobot_env_pixio.scenes import PairRenderer, SceneRenderer
from PIL import Image
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.downstream.config import Data
from pixio_robot.downstream.scenes import Simulator
from pixio_robot.downstream.task import CellResult
from pixio_robot.downstream.two_view.config import TwoViewProtocol
from pixio_robot.downstream.two_view.metrics import METRICS
from pixio_robot.downstream.two_view.task import IDENTITY, MEAN_DEPTH, TwoViewTask, two_view_tasks
from pixio_robot.encoders import EncoderConfig
from pixio_robot.engine.loop import Training
from pixio_robot.engine.stopping import StoppedError

SIMULATOR = Simulator(("procedural_table",), ("background",), 8, SceneRenderer, PairRenderer)
PIXELS = EncoderConfig("pixels")
SMALL = TwoViewProtocol(
    families=("procedural_table",), train_pairs=6, test_pairs=2, image_size=64, points=16,
    width=64, rounds=2, steps=250, batch_size=6, learning_rate=3e-3, clouds=1,
)  # fmt: skip
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered pairs; those of the test are those of the training, so that what is measured is what was learnt."""
    place = tmp_path_factory.mktemp("pairs")
    (task,) = two_view_tasks(SMALL, Data(), SIMULATOR, place)
    task._read(QUIET)
    return place


def the_task(folder: Path, **changes: object) -> TwoViewTask:
    (task,) = two_view_tasks(dataclasses.replace(SMALL, **changes), Data(), SIMULATOR, folder)
    train, _ = task._read(QUIET)
    task._pairs = train, train
    return task


def means(result: CellResult) -> dict[str, float]:
    return {name: float(np.mean(values)) for name, values in result.metrics.items()}


def test_a_head_learns_its_own_pairs_better_than_guessing(folder: Path, tmp_path: Path) -> None:
    task = the_task(folder)
    assert [metric.name for metric in task.metrics] == [metric.name for metric in METRICS]
    identity, guess = (means(task.measure(name, tmp_path, QUIET)) for name in (IDENTITY, MEAN_DEPTH))
    assert identity["pose_auc5"] == 0
    assert np.isnan(identity["points_rel"]) and np.isnan(guess["pose_auc5"])
    result = task.measure(PIXELS, tmp_path, QUIET)
    learnt = means(result)
    assert learnt["pose_auc5"] > 0.2
    assert learnt["trajectory"] < 0.5 * identity["trajectory"]
    for name in ("points_rel", "depth_rel", "scale_rel", "rays_deg"):
        assert learnt[name] < 0.6 * guess[name], name
    for name in ("points_inliers", "depth_inliers"):
        assert learnt[name] > guess[name], name
    assert set(result.intervals) == set(learnt)
    for name, (low, high) in result.intervals.items():
        assert low <= learnt[name] <= high
    assert [Image.open(tmp_path / name).format for name in result.pictures.values()] == ["PNG"]
    assert len(result.files) == 2
    for name in result.files.values():
        header, points = (tmp_path / name).read_bytes().split(b"end_header\n", 1)
        count = int(header.split(b"element vertex ")[1].split(b"\n")[0])
        assert len(points) == 15 * count and 0 < count <= 2 * 16 * 16


def test_a_stopped_training_goes_on_to_the_same_head(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = the_task(folder, steps=12, batch_size=4)
    whole = task.measure(PIXELS, tmp_path / "whole", QUIET)
    with monkeypatch.context() as patched:
        step = Training._step

        def stopping(self: Training, batch):
            if batch.step == 6:
                os.kill(os.getpid(), signal.SIGTERM)
            return step(self, batch)

        patched.setattr(Training, "_step", stopping)
        with pytest.raises(StoppedError):
            task.measure(PIXELS, tmp_path / "parts", QUIET)
    resumed = task.measure(PIXELS, tmp_path / "parts", QUIET)
    assert resumed.metrics == whole.metrics
    with pytest.raises(UserError):  # another protocol must not go on from these weights
        the_task(folder, steps=12, batch_size=4, weight_decay=0.1).measure(PIXELS, tmp_path / "parts", QUIET)


def test_what_a_result_depends_on_is_its_identity(folder: Path) -> None:
    task = the_task(folder)
    assert task.identity() == the_task(folder).identity()
    assert task.identity() != the_task(folder, steps=9).identity()


def test_a_grid_of_points_must_fit_the_patches(folder: Path) -> None:
    with pytest.raises(UserError, match=r"4×4 patches on images of 64 px, .* set two_view\.points=8"):
        the_task(folder, points=9).check(PIXELS)


def test_a_users_folder_is_read_like_a_rendered_one(folder: Path, tmp_path: Path) -> None:
    (place,) = folder.glob("pairs-*/")
    (task,) = two_view_tasks(SMALL, Data(wai=place), SIMULATOR, tmp_path)
    assert task.name == "two_view-wai"
    (rendered,) = two_view_tasks(SMALL, Data(), SIMULATOR, folder)
    for own, theirs in zip(task._read(QUIET), rendered._read(QUIET), strict=True):
        assert own.names == theirs.names
        assert torch.equal(own.depth_NVhw, theirs.depth_NVhw)
    with pytest.raises(UserError, match="renders no pairs of views"):
        two_view_tasks(SMALL, Data(), dataclasses.replace(SIMULATOR, pairs=None), tmp_path)
    few = dataclasses.replace(SMALL, families=("procedural_table", "procedural_arm"), test_pairs=1)
    with pytest.raises(UserError, match="must be at least the 2 scene families"):
        two_view_tasks(few, Data(), SIMULATOR, tmp_path)[0].measure(IDENTITY, tmp_path, QUIET)
