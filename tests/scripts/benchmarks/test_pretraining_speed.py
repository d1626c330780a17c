"""The speed ladder: every rung has the plain trainer's loss curve, and its top is the real trainer."""

import dataclasses
import json
import logging
from io import StringIO
from pathlib import Path

import pytest
import tiny_run
import torch
from pretraining_speed.ladder import SIDE, Measurement, ladder, loss_deviation, measure, write_images
from pretraining_speed.table import ladder_record
from pretraining_speed.targets import Target, print_targets, reached, targets
from rich.console import Console
from rich.progress import Progress
from timm.models.vision_transformer import Block
from torch import nn

from pixio_robot.pretraining.model.execution import compile_blocks
from pixio_robot.pretraining.sources import folder_images
from pixio_robot.pretraining.trainer import pretrain

CPU = torch.device("cpu")
STEPS, IMAGES = 6, 12
TINY = dataclasses.replace(tiny_run.TINY, steps=STEPS)


@pytest.fixture(scope="module")
def rungs() -> list[Measurement]:
    torch.set_num_threads(1)
    eager = [dataclasses.replace(rung, compiled=False) for rung in ladder("cpu")]
    with Progress(disable=True) as progress:
        return measure(TINY, eager, STEPS // 2, 2, IMAGES, 0, progress)


@pytest.mark.slow  # trains every rung
def test_every_rung_has_the_loss_curve_of_the_plain_trainer(rungs: list[Measurement]) -> None:
    reference = rungs[0].losses
    assert len(reference) == STEPS
    assert reference[-1] < 0.98 * reference[0]  # a curve that moves
    for measurement in rungs:
        deviation = loss_deviation(measurement.losses, reference)
        assert deviation <= measurement.rung.tolerance, measurement.rung.name
        if measurement.rung.precision == "bfloat16":
            assert deviation > 0  # so that a rung which changes nothing is found


@pytest.mark.slow  # trains every rung
def test_the_top_is_the_real_trainer(rungs: list[Measurement], tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    write_images(tmp_path / "images", IMAGES)
    source = folder_images(tmp_path / "images", tmp_path / "cache", SIDE)
    pretrain(dataclasses.replace(TINY, precision="bfloat16"), source, tmp_path / "run")
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if "loss" in record]
    assert losses == pytest.approx(rungs[-2].losses, rel=1e-6)


@pytest.mark.slow  # trains every rung
def test_the_record_says_what_was_gained(rungs: list[Measurement]) -> None:
    record = ladder_record(TINY, rungs, threads=1, workers=0)
    rows = record["rows"]
    assert rows[0]["speedup"] == 1
    assert record["ratios"]["end to end"] == pytest.approx(rows[-2]["speedup"])
    assert record["ratios"]["both in bfloat16"] == pytest.approx(rows[-2]["speedup"] / rows[-1]["speedup"])
    assert all(0 < row["ceiling_share"] < 1 for row in rows)


@pytest.mark.slow  # trains every rung
def test_without_low_precision_the_top_is_the_last(rungs: list[Measurement]) -> None:
    assert [rung.name for rung in ladder("cpu", None)] == [rung.name for rung in ladder("cpu")][:-2]
    record = ladder_record(TINY, rungs[:-2], threads=1, workers=0)
    assert record["ratios"].keys() == {"end to end", "both in float32"}
    assert record["ratios"]["end to end"] == record["ratios"]["both in float32"] == record["rows"][-1]["speedup"]


class _Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.Sequential(Block(16, 2, qkv_bias=True), Block(16, 2, qkv_bias=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x)


@pytest.mark.slow  # waits for the compiler
def test_compiled_blocks_compute_the_same(tmp_path: Path) -> None:
    torch.compiler.reset()
    plain, compiled = _Pair(), _Pair()
    assert compile_blocks(compiled, CPU)
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    x = torch.randn(2, 5, 16)
    for module in (plain, compiled):
        module(x).square().mean().backward()
    torch.testing.assert_close(compiled(x), plain(x), rtol=1e-5, atol=1e-5)
    for one, other in zip(compiled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_without_a_compiler_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import torch._inductor.config as inductor

    torch.compiler.reset()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    module = _Pair()
    with inductor.patch({"cpp.cxx": ("no-such-compiler",)}), caplog.at_level(logging.WARNING):
        assert not compile_blocks(module, CPU)
    (message,) = [record.message for record in caplog.records if record.name.startswith("pixio_robot")]
    assert "not compiled" in message
    assert "\n" not in message
    assert module(torch.randn(1, 3, 16)).isfinite().all()


def test_targets_are_measured_on_the_trainer_itself() -> None:
    screen = Console(file=StringIO(), width=200)
    tiny = dataclasses.replace(tiny_run.TINY, steps=2, accumulation=1)
    found = [
        reached(Target(tiny, images_per_second=goal), 8, plain_steps, 1, Progress(disable=True))
        for goal, plain_steps in ((1e-3, 1), (1e9, 0))
    ]
    assert [record["reached"] for record in found] == [True, False]
    assert found[0]["images_per_second"] > 0
    assert found[0]["plain_images_per_second"] > 0
    assert found[0]["mfu"] is None  # there is no product rate of a CPU
    assert found[1]["plain_images_per_second"] is None
    print_targets(found, screen)
    assert isinstance(screen.file, StringIO)
    assert "1,000,000,000 images/s" in screen.file.getvalue()


def test_the_targets_are_those_of_the_paper_s_decoder_at_256_px() -> None:
    huge, base, small = targets("cuda", 10)
    assert (huge.mfu, base.mfu, small.images_per_second) == (0.5, 0.45, 20_000)
    for target in (huge, base):
        config = target.config
        assert (config.image_size, config.decoder_dim, config.decoder_depth, config.decoder_heads) == (256, 512, 32, 16)
        assert (config.precision, config.residual, config.compile_blocks) == ("bfloat16", "bfloat16", True)
    assert small.config.photometric is not None
