"""A run that is asked to stop ends its step, saves it and says how to go on."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from forked_scripts import Program

from pixio_robot.cli.jobs import CONFIG_FOLDER
from pixio_robot.engine.stopping import StopRequest

SCRIPT = CONFIG_FOLDER.parent / "scripts" / "pretrain_encoder.py"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
SMALL = ("pretraining.image_size=32", "pretraining.decoder_dim=16", "pretraining.decoder_depth=1")


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(
    ("launcher", "request_"), [((), signal.SIGINT), ((), signal.SIGUSR1), (TORCHRUN, signal.SIGTERM)]
)
def test_a_run_asked_to_stop_saves_its_step_and_says_how_to_go_on(
    launcher: tuple[str, ...], request_: signal.Signals, image_folder: Path, tmp_path: Path
) -> None:
    settings = (f"images.path={image_folder}", f"output_root={tmp_path}", "pretraining.batch_size=4", *SMALL)
    command = (*launcher, str(SCRIPT), *settings, "pretraining.epochs=null", "pretraining.steps=100000")
    with Program(command, tmp_path) as program:
        deadline = time.monotonic() + 300
        while '"loss"' not in "".join(log.read_text() for log in tmp_path.glob("pretrain_encoder/*/log.jsonl")):
            assert program.is_running, program.output
            if time.monotonic() > deadline:
                os.kill(program.pid, signal.SIGABRT)  # faulthandler answers with what the threads are at
                raise AssertionError(f"no loss after 300 s:\n{program.ended(10).stderr}")
            time.sleep(0.1)
        os.killpg(program.pid, request_)  # as a terminal does to all processes of a command; torchrun asks once more
        ended = program.ended(100)
        assert ended.returncode != 0
        said = program.output
    (run,) = (tmp_path / "pretrain_encoder").iterdir()
    assert said.count(f"stopped; continue with resume={run}\n") == 1
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    steps = [record["step"] for record in records if "loss" in record]
    assert steps == list(range(1, len(steps) + 1))
    newest = max(int(path.name) for path in (run / "checkpoints").glob("[0-9]*"))
    assert newest == len(steps) < 100000


@pytest.mark.usefixtures("interruptible")
def test_a_second_request_has_its_usual_effect_unless_it_is_the_first_one_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    before = signal.getsignal(signal.SIGINT)
    with StopRequest() as request:
        assert request.signal is None
        signal.raise_signal(signal.SIGINT)
        now = 1.0
        signal.raise_signal(signal.SIGTERM)  # the same request, passed on by torchrun
        assert request.signal == signal.SIGINT
        now = 5.0
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    """As nohup and the shell have it for what runs in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopRequest() as request:
            signal.raise_signal(signal.SIGINT)
        assert request.signal is None
    finally:
        signal.signal(signal.SIGINT, before)
