"""A whole cell: features, training by the engine, tests, pictures; what is interrupted goes on."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from rich.console import Console
from toy_simulator import Squares, toy_simulator
from transformers import PixioConfig, PixioModel

from pixio_robot.common.errors import UserError
from pixio_robot.downstream.cells import Cell, fill
from pixio_robot.downstream.config import Data
from pixio_robot.downstream.dense.config import DenseProtocol, DenseScenes, Recipe
from pixio_robot.downstream.dense.data.sets import Kind
from pixio_robot.downstream.dense.features import FrozenEncoder, frozen_encoder
from pixio_robot.downstream.dense.task import DenseTask, dense_tasks
from pixio_robot.encoders import EncoderConfig, EncoderTokens
from pixio_robot.encoders.pixio import pixio_checkpoint_filter

QUIET, CPU = Console(quiet=True), torch.device("cpu")
SCENES = DenseScenes(families=("bright",), held_out_families=("dark",), frames=12, test_frames=6, image_size=32)
PROTOCOL = DenseProtocol(
    crop=32,
    stride=21,
    epochs=2,
    evaluate_every=1,
    recipe=Recipe(batch_size=4, linear_rate=1e-2, dpt_rate=1e-3),
    dpt_width=8,
    dpt_channels=(4, 4, 8, 8),
    scenes=SCENES,
)
PIXELS = EncoderConfig("pixels")


def tasks_in(folder: Path, kind: Kind = "depth", protocol: DenseProtocol = PROTOCOL) -> list[DenseTask]:
    tasks = dense_tasks(kind, protocol, Data(), toy_simulator(), folder)
    return [task for task in tasks if isinstance(task, DenseTask)]


def rows(cells: list[Cell]) -> dict[tuple[str, str], Cell]:
    return {(cell.task, cell.label): cell for cell in cells}


def colours(images: torch.Tensor) -> list[EncoderTokens]:
    """Four levels of the mean colours of patches of 4 px."""
    patches = torch.nn.functional.avg_pool2d(images, 4).permute(0, 2, 3, 1)
    return [EncoderTokens(patches.mean(dim=(1, 2))[:, None], patches)] * 4


COLOURS = FrozenEncoder(colours, torch.zeros(3), "colours", CPU)


@pytest.mark.parametrize(("kind", "ranked"), [("depth", "delta1"), ("segmentation", "miou")])
def test_heads_learn_what_features_hold(kind: Kind, ranked: str, tmp_path: Path) -> None:
    scenes = dataclasses.replace(SCENES, frames=48)
    recipe = Recipe(batch_size=8, linear_rate=5e-2, dpt_rate=1e-2)
    protocol = dataclasses.replace(PROTOCOL, epochs=15, evaluate_every=10, flip=True, scenes=scenes, recipe=recipe)
    for task in tasks_in(tmp_path / "room", kind, protocol):
        guess = task.measure("guess", tmp_path, QUIET).metrics
        found = task.measure_on(COLOURS, task.open(QUIET), tmp_path / task.name, QUIET)
        assert found.metrics[ranked][0] > guess[ranked][0] + 0.02, task.name
        low, high = found.intervals[ranked]
        assert low <= found.metrics[ranked][0] <= high
        assert all(epoch in (10, 15) for _, epoch in found.record["best_value_and_epoch"][ranked])


@pytest.mark.parametrize(("kind", "ranked"), [("depth", "delta1"), ("segmentation", "miou")])
def test_cells_are_filled_by_both_heads_and_kept(kind: Kind, ranked: str, tmp_path: Path) -> None:
    tasks = tasks_in(tmp_path / "room", kind, dataclasses.replace(PROTOCOL, seeds=(0, 1)))
    assert [task.name for task in tasks] == [f"{kind}-scenes-linear", f"{kind}-scenes-dpt"]
    cells = rows(fill(tasks, {"pixels": PIXELS}, tmp_path, QUIET))
    for task in tasks:
        guess, pixels = cells[task.name, "guess"].result, cells[task.name, "pixels"].result
        names = {metric.name for metric in task.metrics}
        assert names == set(pixels.metrics) == set(guess.metrics)
        assert task.metrics[0].name == ranked and task.metrics[1].name == f"{ranked}_families"
        assert all(len(values) == 2 for values in pixels.metrics.values())
        best = [value for value, _ in pixels.record["best_value_and_epoch"][ranked]]
        assert best == pixels.metrics[f"{ranked}_best"]
        assert all(a >= b for a, b in zip(best, pixels.metrics[ranked], strict=True))
        assert {ranked, f"{ranked}_families"} <= set(pixels.intervals) <= names
        folder = cells[task.name, "pixels"].folder
        for file in (*pixels.files.values(), *pixels.pictures.values()):
            assert (folder / file).stat().st_size > 0
        with Image.open(folder / "predictions.png") as drawn:
            assert drawn.size == (3 * 164, 4 * 164)
        assert not list(folder.rglob("checkpoints"))
    before = Squares.rendered
    again = rows(fill(tasks, {"pixels": PIXELS}, tmp_path, QUIET))
    assert Squares.rendered == before
    assert {key: cell.result.metrics for key, cell in again.items()} == {
        key: cell.result.metrics for key, cell in cells.items()
    }


@pytest.mark.parametrize("kind", ["depth", "segmentation"])
def test_features_computed_at_every_step_give_what_kept_ones_give(kind: Kind, tmp_path: Path) -> None:
    for head in range(2):
        results = []
        for number, size in enumerate((1.0, 0.0)):
            task = tasks_in(tmp_path / "room", kind, dataclasses.replace(PROTOCOL, cache_gib=size, flip=True))[head]
            results.append(task.measure_on(COLOURS, task.open(QUIET), tmp_path / f"{head}-{number}", QUIET))
        for name, values in results[0].metrics.items():
            assert results[1].metrics[name] == pytest.approx(values, abs=0.02), name


def test_features_are_kept_once_where_they_fit(tmp_path: Path) -> None:
    fill(tasks_in(tmp_path / "room"), {"pixels": PIXELS}, tmp_path, QUIET)
    assert len(list((tmp_path / "room/features").iterdir())) == 3  # training and two tests, for both heads
    without = dataclasses.replace(PROTOCOL, cache_gib=0.0)
    task = tasks_in(tmp_path / "other", protocol=without)[0]
    task.measure_on(COLOURS, task.open(QUIET), tmp_path / "cell", QUIET)
    assert not (tmp_path / "other/features").exists()


def test_an_interrupted_cell_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    task = tasks_in(tmp_path / "room")[1]
    data = task.open(QUIET)
    whole = task.measure_on(COLOURS, data, tmp_path / "whole", QUIET)
    reads = 0

    def truth(row: int) -> np.ndarray:
        nonlocal reads
        reads += 1
        if reads > 16:  # in the second epoch of three steps of four images each
            raise KeyboardInterrupt
        return data.training.truth(row)

    stopping = dataclasses.replace(data, training=dataclasses.replace(data.training, truth=truth))
    with pytest.raises(KeyboardInterrupt):
        task.measure_on(COLOURS, stopping, tmp_path / "stopped", QUIET)
    assert [path.name for path in (tmp_path / "stopped/seed-0/checkpoints").glob("0*")] == ["000003"]
    continued = task.measure_on(COLOURS, data, tmp_path / "stopped", QUIET)
    assert continued.metrics == whole.metrics and continued.intervals == whole.intervals
    assert continued.record == whole.record


def test_depth_on_transformers_pixio_is_depth_on_ours(tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = {"hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 3, "image_size": 128}
    theirs = PixioModel(PixioConfig(**small)).eval()
    ours = timm.create_model("pixio_tiny16")
    weights = tmp_path / "weights.pth"
    torch.save(pixio_checkpoint_filter(theirs.state_dict(), ours), weights)
    mean, deviation = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def encode(images: torch.Tensor) -> list[EncoderTokens]:
        hidden = theirs((images - mean) / deviation, output_hidden_states=True).hidden_states
        assert hidden is not None and len(hidden) == 7  # before the blocks, and after each
        normal = [theirs.layernorm(hidden[block + 1]) for block in (1, 2, 4, 5)]
        grid = images.shape[-1] // 16
        return [EncoderTokens.unflatten(tokens, 8, (grid, grid)) for tokens in normal]

    protocol = dataclasses.replace(PROTOCOL, cache_gib=0.0)
    for task in tasks_in(tmp_path / "room", protocol=protocol):
        encoders = {
            "theirs": FrozenEncoder(encode, mean.flatten(), "theirs", CPU),
            "ours": frozen_encoder(EncoderConfig("pixio_tiny16", str(weights)), 4, CPU, "float32"),
        }
        results = {
            name: task.measure_on(encoder, task.open(QUIET), tmp_path / task.name / name, QUIET)
            for name, encoder in encoders.items()
        }
        for name, values in results["theirs"].metrics.items():
            assert results["ours"].metrics[name] == pytest.approx(values, rel=1e-4), name


def test_a_convolutional_encoder_is_read_as_a_pyramid(tmp_path: Path) -> None:
    encoder = EncoderConfig("resnet18", "random")
    protocol = dataclasses.replace(PROTOCOL, epochs=1)
    task = tasks_in(tmp_path / "room", "segmentation", protocol)[1]
    task.check(encoder)
    assert math.isfinite(task.measure(encoder, tmp_path / "cell", QUIET).metrics["miou"][0])


def test_an_encoder_that_gives_its_output_alone_has_a_linear_head_only(tmp_path: Path) -> None:
    class Script(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.avg_pool2d(images, 16)

    torch.jit.script(Script()).save(tmp_path / "script.pt")
    config = EncoderConfig("torchscript", str(tmp_path / "script.pt"))
    linear, dpt = tasks_in(tmp_path / "room")
    with pytest.raises(UserError, match=r"torchscript gives its output alone.*choose a head that reads the last block"):
        dpt.check(config)
    linear.check(config)
    assert math.isfinite(linear.measure(config, tmp_path / "cell", QUIET).metrics["delta1"][0])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"families": ("brigt",)}, "Unknown scene family 'brigt'. Did you mean 'bright'"),
        ({"image_size": 16}, "Crops of 32 px are larger than the scenes, which have 16 px"),
    ],
)
def test_scenes_that_cannot_be_are_refused_before_anything_is_rendered(
    changes: dict, sentence: str, tmp_path: Path
) -> None:
    protocol = dataclasses.replace(PROTOCOL, scenes=dataclasses.replace(SCENES, **changes))
    with pytest.raises(UserError, match=sentence):
        fill(tasks_in(tmp_path / "room", protocol=protocol), {"pixels": PIXELS}, tmp_path, QUIET)
    assert not (tmp_path / "room").exists()


def test_settings_that_forbid_each_other_are_refused() -> None:
    with pytest.raises(UserError, match="lift_panda cannot be trained on and held out"):
        DenseScenes(held_out_families=("lift_panda",))
    with pytest.raises(UserError, match="Scenes of seed 5 are trained on"):
        DenseScenes(seed=5, test_seed=5)
    with pytest.raises(UserError, match="A stride of 33 px leaves gaps between windows of 32 px"):
        DenseProtocol(crop=32, stride=33)
    with pytest.raises(UserError, match="heads must name at least one, and each once"):
        DenseProtocol(heads=("dpt", "dpt"))


def test_identity_is_what_results_depend_on(tmp_path: Path) -> None:
    linear, dpt = tasks_in(tmp_path)
    wider = tasks_in(tmp_path, protocol=dataclasses.replace(PROTOCOL, dpt_width=16, cache_gib=1.0))
    assert wider[0].identity() == linear.identity() != dpt.identity()
    assert wider[1].identity() != dpt.identity()
    longer = tasks_in(tmp_path, protocol=dataclasses.replace(PROTOCOL, epochs=3))
    assert longer[0].identity() != linear.identity()
    json.dumps(dpt.identity())
