"""A whole cell on planes that two cameras see: a head learns pairs by heart, and what is interrupted goes on."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from toy_simulator import toy_simulator

from pixio_robot.downstream.cells import fill
from pixio_robot.downstream.config import Data
from pixio_robot.downstream.two_view import training
from pixio_robot.downstream.two_view.config import TwoViewProtocol
from pixio_robot.downstream.two_view.task import TwoViewTask, two_view_tasks
from pixio_robot.encoders import EncoderConfig

QUIET = Console(quiet=True)
PIXELS = EncoderConfig("pixels")
PROTOCOL = TwoViewProtocol(
    families=("bright",),
    train_pairs=8,
    test_pairs=4,
    image_size=32,
    points=8,
    width=32,
    rounds=1,
    heads=2,
    steps=8,
    batch_size=8,
    learning_rate=3e-3,
    clouds=1,
)


@dataclasses.dataclass
class Posed:
    frame: np.ndarray
    depth: np.ndarray
    focal_length: float
    pose: np.ndarray


class Planes:
    """Pairs of cameras side by side before a coloured plane, 2 m away."""

    def __init__(self, family: str, image_size: int, seed: int) -> None:
        del family
        self._side, self._seed = image_size, seed

    def pair(self, index: int) -> object:
        rng = np.random.default_rng([self._seed, index])
        waves, phases = rng.uniform(1, 4, (3, 2)), rng.uniform(0, 6, 3)
        views = []
        for shift in (np.zeros(3), np.array([*rng.uniform(-0.4, 0.4, 2), 0.0])):
            at = ((np.arange(self._side) - (self._side - 1) / 2) / self._side) * 2
            y, x = np.meshgrid(at + shift[1], at + shift[0], indexing="ij")
            colours = [np.sin(wave[0] * x + wave[1] * y + phase) for wave, phase in zip(waves, phases, strict=True)]
            pose = np.eye(4)
            pose[:3, 3] = shift
            frame = (127 + 120 * np.stack(colours, axis=-1)).astype(np.uint8)
            views.append(Posed(frame, np.full((self._side,) * 2, 2.0, np.float32), float(self._side), pose))
        return dataclasses.make_dataclass("Pair", ("views", "covisibility"))(tuple(views), np.ones((2, 2), np.float32))

    def close(self) -> None:
        pass


def task_in(folder: Path, **changes: object) -> TwoViewTask:
    protocol = dataclasses.replace(PROTOCOL, **changes)  # pyright: ignore[reportArgumentType]
    simulator = dataclasses.replace(toy_simulator(), pairs=Planes)  # pyright: ignore[reportArgumentType]
    (task,) = two_view_tasks(protocol, Data(), simulator, folder)
    return task


@pytest.mark.slow
def test_a_head_learns_a_handful_of_pairs_by_heart(tmp_path: Path) -> None:
    """Pose and shape: what cannot learn these learns nothing."""
    task = task_in(tmp_path, steps=400, points=4)
    train, test = task._read(QUIET)
    task._pairs = train, train
    found = task.measure(PIXELS, tmp_path / "cell", QUIET).metrics
    guess = task.measure("mean_depth", tmp_path, QUIET).metrics
    still = task.measure("identity_pose", tmp_path, QUIET).metrics
    assert found["pose_auc5"][0] > 0.3 and still["pose_auc5"][0] == 0
    assert found["trajectory"][0] < 0.3 * still["trajectory"][0]
    assert found["points_inliers"][0] > 0.6 and found["rays_deg"][0] < 2
    assert len(test.names) == 4 and np.isfinite(guess["points_rel"][0])


def test_a_cell_is_filled_beside_its_baselines_and_kept(tmp_path: Path) -> None:
    task = task_in(tmp_path / "room", seeds=(0, 1))
    cells = {cell.label: cell for cell in fill([task], {"pixels": PIXELS}, tmp_path, QUIET)}
    result = cells["pixels"].result
    assert {metric.name for metric in task.metrics} == set(result.metrics)
    assert all(len(values) == 2 and np.isfinite(values).all() for values in result.metrics.values())
    assert result.record["pairs"] == {"train": 8, "test": 4}
    for file in (*result.files.values(), *result.pictures.values()):
        assert (cells["pixels"].folder / file).stat().st_size > 0
    again = {cell.label: cell for cell in fill([task], {"pixels": PIXELS}, tmp_path, QUIET)}
    for label, cell in again.items():
        for name, values in cells[label].result.metrics.items():
            np.testing.assert_array_equal(cell.result.metrics[name], values)


def test_an_interrupted_training_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_in(tmp_path / "room")
    whole = task.measure(PIXELS, tmp_path / "whole", QUIET)
    loss = training.two_view_loss
    calls = 0

    def stopping(*arguments: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 6:  # after the checkpoint of the fourth step
            raise KeyboardInterrupt
        return loss(*arguments)  # pyright: ignore[reportArgumentType]

    with monkeypatch.context() as patched:
        patched.setattr(training, "two_view_loss", stopping)
        with pytest.raises(KeyboardInterrupt):
            task.measure(PIXELS, tmp_path / "stopped", QUIET)
    assert [path.name for path in (tmp_path / "stopped/seed-0/checkpoints").glob("0*")] == ["000004"]
    continued = task.measure(PIXELS, tmp_path / "stopped", QUIET)
    assert continued.metrics == whole.metrics and continued.intervals == whole.intervals
