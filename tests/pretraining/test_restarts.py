"""A standing command of a job script goes on after whatever ended it: a process, the launcher, the machine."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from forked_scripts import Program, run_python

from pixio_robot.cli.jobs import CONFIG_FOLDER

SCRIPT = str(CONFIG_FOLDER.parent / "scripts" / "pretrain_encoder.py")
LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "3")
STEPS = 60


def lines(log: Path) -> list[dict[str, float]]:
    """Of the steps in a log of which the last line may be half written."""
    records = []
    for line in log.read_text().splitlines() if log.exists() else []:
        if line.endswith("}"):
            records.append(json.loads(line))
    return [record for record in records if "loss" in record]


def until(condition: Callable[[], object], program: Program | None = None) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, program and program.output
        assert program is None or program.is_running, program.output
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    return [int(pid) for pid in subprocess.check_output(["pgrep", "-P", str(pid)]).split()]


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
def test_resume_auto_goes_on_after_the_death_of_a_process_of_the_launcher_and_of_all(
    image_folder: Path, tmp_path: Path
) -> None:
    small = [f"pretraining.{name}" for name in ("image_size=32", "decoder_dim=16", "decoder_depth=1", "batch_size=4")]
    small += ["pretraining.epochs=null", f"pretraining.steps={STEPS}", "pretraining.checkpoint_minutes=0"]
    command = (SCRIPT, f"images.path={image_folder}", f"output_root={tmp_path}", *small, "run=standing", "resume=auto")
    run = tmp_path / "pretrain_encoder" / "standing"
    newest = lambda: max([0, *(int(path.name) for path in run.glob("checkpoints/[0-9]*"))])  # noqa: E731
    with Program((*LAUNCHER, *command), tmp_path) as program:
        until(lambda: newest() > 2, program)
        os.kill(children(program.pid)[1], signal.SIGKILL)
        before = newest()
        until(lambda: newest() > before + 2, program)
        os.kill(children(program.pid)[1], signal.SIGUSR1)  # all processes save, end and are started again
        before = newest()
        until(lambda: newest() > before + 2, program)
        assert program.output.count("output in") == 3
        assert program.output.count("continued") == 2
        workers = children(program.pid)
        os.kill(program.pid, signal.SIGKILL)
        until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in workers))
    assert lines(run / "log.jsonl")[-1]["step"] == newest()
    with Program((*LAUNCHER, *command), tmp_path) as program:
        before = newest()
        until(lambda: newest() > before, program)
        os.killpg(program.pid, signal.SIGKILL)
        for pid in children(program.pid):
            os.kill(pid, signal.SIGKILL)
    done = run_python(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run_python(*command[:-2], "pretraining.checkpoint_minutes=5", "run=straight", cwd=tmp_path)
    straight = lines(run.parent / "straight" / "log.jsonl")
    assert [line["step"] for line in straight] == list(range(1, STEPS + 1))
    assert [line["loss"] for line in lines(run / "log.jsonl")] == pytest.approx(
        [line["loss"] for line in straight], rel=2e-3
    )
