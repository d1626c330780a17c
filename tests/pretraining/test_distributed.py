"""Two processes do what one does: DDP, FSDP2, resuming on another number, one sentence for a mistake; 5B in shards.

This file itself is run as the two processes, once for all runs.
"""

import contextlib
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_run
import torch
from forked_scripts import run_python, run_two_processes
from safetensors.torch import load_file

from pixio_robot.cli.jobs import CONFIG_FOLDER
from pixio_robot.common.errors import UserError
from pixio_robot.engine.processes import Processes, join_processes
from pixio_robot.pretraining.config import PretrainConfig
from pixio_robot.pretraining.sources import ImageCache, folder_images
from pixio_robot.pretraining.trainer import pretrain

STEPS, STOP = 5, 2
CONFIG = dataclasses.replace(tiny_run.TINY, steps=STEPS, drop_path=0.5, checkpoint_minutes=0)
SHARDED = dataclasses.replace(CONFIG, distribution="fsdp")


class StoppedError(Exception):
    """A run ended in the middle, with a checkpoint after `STOP` steps."""


def stop(step: int, loss: float) -> None:
    """End the run in the step after the checkpoint of step STOP."""
    if step > STOP:
        raise StoppedError


def stopped_early(config: PretrainConfig, source: ImageCache, folder: Path, processes: Processes | None = None) -> None:
    with contextlib.suppress(StoppedError):
        pretrain(config, source, folder, processes=processes, on_log=stop)


def two_processes(images: Path, folder: Path) -> None:
    """Train with DDP and FSDP, whole, stopped, and resumed from one process; then let a loss explode."""
    torch.set_num_threads(1)
    source = folder_images(images, folder / "cache", 40)
    ddp = join_processes()
    fsdp = dataclasses.replace(ddp, distribution="fsdp")
    pretrain(CONFIG, source, folder / "ddp", processes=ddp)
    bfloat16 = dataclasses.replace(CONFIG, precision="bfloat16", accumulation=1)
    pretrain(bfloat16, source, folder / "ddp_bfloat16", processes=ddp)
    pretrain(CONFIG, source, folder / "fsdp_resumed", resume=True, processes=fsdp)
    pretrain(bfloat16, source, folder / "fsdp_resumed_bfloat16", resume=True, processes=fsdp)
    stopped_early(CONFIG, source, folder / "ddp_stopped", ddp)
    checkpointed = dataclasses.replace(CONFIG, activation_checkpointing=True)
    stopped_early(checkpointed, source, folder / "fsdp_stopped", fsdp)
    ddp.wait()
    if ddp.main:
        shutil.copytree(folder / "fsdp_stopped", folder / "fsdp_continued")
    ddp.wait()
    pretrain(CONFIG, source, folder / "fsdp_continued", resume=True, processes=fsdp)
    pretrain(dataclasses.replace(SHARDED, mesh=(2, 1)), source, folder / "replicas", resume=True, processes=fsdp)
    halved = dataclasses.replace(bfloat16, residual="bfloat16")
    pretrain(halved, source, folder / "fsdp_halved", resume=True, processes=fsdp)
    started = dataclasses.replace(CONFIG, start_from=str(folder / "one"), lr=1e-12, steps=1)
    pretrain(started, source, folder / "fsdp_started", processes=fsdp)
    explosive = dataclasses.replace(CONFIG, lr=1e30, steps=200, warmup=1.0)
    try:
        pretrain(explosive, source, folder / "explosive", processes=ddp)
        message = "no error"
    except UserError as error:
        message = str(error)
    (folder / f"explosive-{ddp.rank}.json").write_text(json.dumps(message))


# float32 sums of gradients and losses are taken in another order by two processes than by one; five steps of Adam
# keep that rounding (relative 6e-8 each) below this. In bfloat16 products are rounded to 8 bits, to a nearest value
# that a change in the last bit of a weight can turn: relative 2^-9 each, less in the mean over a batch.
FLOAT32, BFLOAT16 = 2e-6, 1e-3


def losses(folder: Path) -> list[float]:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    steps = [record["step"] for record in records if "loss" in record]
    assert steps == list(range(1, len(steps) + 1))  # one process logs
    return [record["loss"] for record in records if "loss" in record]


@pytest.fixture(scope="module")
def runs(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one process, then what `two_processes` does, then one process again."""
    folder = tmp_path_factory.mktemp("distributed")
    source = folder_images(image_folder, folder / "cache", 40)
    bfloat16 = dataclasses.replace(CONFIG, precision="bfloat16", accumulation=1)
    for config, name in ((CONFIG, ""), (bfloat16, "_bfloat16")):
        pretrain(config, source, folder / f"one{name}")
        stopped_early(config, source, folder / f"fsdp_resumed{name}")
    shutil.copytree(folder / "fsdp_resumed", folder / "replicas")
    halved = dataclasses.replace(bfloat16, residual="bfloat16")
    pretrain(halved, source, folder / "one_halved")
    stopped_early(halved, source, folder / "fsdp_halved")
    pretrain(
        dataclasses.replace(CONFIG, start_from=str(folder / "one"), lr=1e-12, steps=1), source, folder / "one_started"
    )
    for done in run_two_processes(__file__, str(image_folder), str(folder), cwd=folder):
        assert done.returncode == 0, done.stderr
    for stopped in ("ddp_stopped", "fsdp_stopped"):
        assert [path.name for path in sorted((folder / stopped / "checkpoints").glob("[0-9]*"))] == ["000001", "000002"]
        pretrain(CONFIG, source, folder / stopped, resume=True)
    return folder


@pytest.mark.parametrize(
    ("run", "like", "tolerance"),
    [
        ("ddp", "one", FLOAT32),
        ("ddp_bfloat16", "one_bfloat16", BFLOAT16),
        ("fsdp_resumed", "one", FLOAT32),  # from a checkpoint of one process
        ("fsdp_resumed_bfloat16", "one_bfloat16", BFLOAT16),
        ("replicas", "one", FLOAT32),
        ("fsdp_halved", "one_halved", 3 * BFLOAT16),  # weights are rounded before norms, too
        ("ddp_stopped", "one", FLOAT32),  # continued by one process
        ("fsdp_stopped", "fsdp_continued", FLOAT32),  # continued by one process, and by two
    ],
)
def test_the_losses_do_not_depend_on_the_processes(runs: Path, run: str, like: str, tolerance: float) -> None:
    one, two = losses(runs / like), losses(runs / run)
    assert len(one) == len(two) == STEPS > STOP
    assert two == pytest.approx(one, rel=tolerance)
    assert len(set(one)) == STEPS
    assert (runs / run / "encoder.safetensors").exists()
    assert (runs / run / "curve.png").exists()


def test_a_sharded_model_starts_from_weights(runs: Path) -> None:
    (one,), (two,) = losses(runs / "one_started"), losses(runs / "fsdp_started")
    assert two == pytest.approx(one, rel=FLOAT32)
    assert one < losses(runs / "one")[0]
    before, after = (load_file(runs / run / "encoder.safetensors") for run in ("one", "fsdp_started"))
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=1e-9)


def test_a_mesh_fits_the_processes() -> None:
    with pytest.raises(UserError, match=r"mesh=\[2, 4\] is 2 groups of 4, 8 processes together, and 2 were started"):
        dataclasses.replace(SHARDED, mesh=(2, 4)).check_shared_by(2)
    with pytest.raises(UserError, match="goes with distribution=fsdp, not ddp"):
        dataclasses.replace(CONFIG, distribution="ddp", mesh=(1, 2))


def test_sharded_checkpoints_are_files_of_both_processes_and_no_pickle(runs: Path) -> None:
    checkpoint = (runs / "fsdp_continued" / "checkpoints" / "last").resolve()
    files = sorted(str(file.relative_to(checkpoint)) for file in checkpoint.rglob("*") if file.is_file())
    shards = [file for file in files if file.startswith("state/")]
    assert len(shards) == 2
    assert {Path(file).suffix for file in files} == {".json", ".safetensors"}
    sizes = [(checkpoint / file).stat().st_size for file in shards]
    assert max(sizes) < 1.2 * min(sizes)


def test_both_processes_stop_at_a_loss_that_is_no_number(runs: Path) -> None:
    first, second = (json.loads((runs / f"explosive-{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert "stopped being" in first
    assert "the last good checkpoint is" in first


def test_a_mistake_is_said_once(image_folder: Path, tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = run_python(
        *launcher,
        str(CONFIG_FOLDER.parent / "scripts" / "pretrain_encoder.py"),
        *(f"images.path={image_folder}", f"output_root={tmp_path}", "pretraining.batch_size=9"),
        "pretraining.accumulation=1",
        cwd=tmp_path,
    )
    assert done.stderr.count("error: A batch of 9 cannot be shared by 2 processes") == 1
    assert "exitcode  : 2" in done.stderr
    assert not list(tmp_path.glob("pretrain_encoder/*"))


@pytest.mark.parametrize(
    ("distribution", "precision", "message"),
    [
        ("ddp", "float32", "needs torchrun"),
        ("fsdp", "float32", "needs torchrun"),
        ("dpp", "float32", "Did you mean 'ddp'"),
    ],
)
def test_distributions_that_cannot_be(
    distribution: str, precision: str, message: str, image_folder: Path, tmp_path: Path
) -> None:
    source = folder_images(image_folder, tmp_path / "cache", 40)
    with pytest.raises(UserError, match=message):
        pretrain(dataclasses.replace(CONFIG, distribution=distribution, precision=precision), source, tmp_path / "run")


def test_more_processes_than_gpus_are_refused(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    source = folder_images(image_folder, tmp_path / "cache", 40)
    with pytest.raises(UserError, match="2 processes were started on a machine with 1 GPU, and each needs its own"):
        pretrain(dataclasses.replace(CONFIG, device="cuda"), source, tmp_path / "run")


def test_no_process_of_64_ever_holds_more_than_its_share_of_5b() -> None:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parents[1] / "helpers" / "meta_5b.py")],
        capture_output=True,
        text=True,
        check=True,
    )
    built = json.loads(done.stdout.splitlines()[-1])
    assert built["parameters"] == pytest.approx(5.44e9 + 0.1e9, rel=0.01)  # encoder (table 1) and decoder
    assert built["own"] == pytest.approx(built["parameters"] / 64, rel=0.05)
    # The process grew by its own shards, and not by a single whole parameter (151 MB for one MLP weight).
    assert built["peak_growth"] < 4 * (built["own"] + built["largest"])
    assert built["fc1_std"] == pytest.approx(built["fc1_expected"], rel=0.01)
    assert built["patch_embed_std"] == pytest.approx(built["patch_embed_expected"], rel=0.02)
    assert built["positions_std"] == pytest.approx(0.02, rel=0.02)
    assert built["class_tokens_std"] == pytest.approx(0.02, rel=0.03)
    assert built["qkv_bias"] == 0
    assert built["norm"] == [1.0]
    assert built["finite"]


if __name__ == "__main__":
    two_processes(Path(sys.argv[1]), Path(sys.argv[2]))
