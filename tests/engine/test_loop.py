"""The engine on a regression that a sheet of paper can follow: what it does when things go well, and when they fail."""

import json
import math
import shutil
import signal
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor, nn

from pixio_robot.common.errors import UserError
from pixio_robot.common.signals import StoppedError
from pixio_robot.engine.average import WeightAverage
from pixio_robot.engine.checkpoints import Checkpoints
from pixio_robot.engine.loop import Plan, Training
from pixio_robot.engine.objective import Batch
from pixio_robot.engine.processes import join_processes
from pixio_robot.engine.run_log import RunLog


class Regression:
    """Two terms: squared errors over unequal numbers of rows, and a pull on the weights that counts once a part."""

    phase, unit = "training", "rows"

    def __init__(self, parts: int = 1, kind: str = "linear") -> None:
        torch.manual_seed(0)
        self.module = nn.Linear(3, 1)
        self.kind, self._parts = kind, parts

    def begin_step(self, step: int) -> None:
        del step

    def parts(self, batch: Batch[Tensor]) -> list[Tensor]:
        # The first part is longer than the others.
        return (
            list(batch.data.tensor_split([5 + index for index in range(self._parts - 1)]))
            if self._parts > 1
            else [batch.data]
        )

    def weights(self, part: Tensor) -> list[float]:
        return [len(part), len(part) ** 2]

    def loss(self, module: nn.Module, part: Tensor) -> Tensor:
        errors = module(part[:, :3]) - part[:, 3:]
        return torch.stack([errors.square().mean(), errors.abs().mean()])

    def identity(self) -> dict[str, Any]:
        return {"variant": self.kind, "size": 3}

    def save(self, folder: Path) -> None:
        (folder / "result.json").write_text(json.dumps(self.module.weight.tolist()))


def rows(step: int) -> Tensor:
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(step))


def stream(first: int, _: dict[str, Any]) -> Generator[Batch[Tensor]]:
    step = first
    while True:
        yield Batch(step, rows(step), [f"row {step}.{index}" for index in range(8)])
        step += 1


def run(
    folder: Path,
    *,
    steps: int = 12,
    rate: Callable[[int], float] = lambda step: 0.01,
    objective: Regression | None = None,
    optimizer: type[torch.optim.Optimizer] = torch.optim.AdamW,
    batches: Callable[..., Generator[Batch[Tensor]]] = stream,
    keep: int = 2,
    keep_every: int | None = None,
    on_log: Callable[[int, float], None] = lambda step, loss: None,
    **plan: Any,
) -> Regression:
    objective = objective or Regression()
    processes = join_processes()
    with RunLog(folder, Console(quiet=True)) as log:
        Training(
            objective,
            optimizer(objective.module.parameters(), lr=0.0),
            Plan(
                steps=steps, learning_rates=lambda step: [rate(step)], batch_size=8, **({"checkpoint_every": 5} | plan)
            ),
            processes,
            Checkpoints(folder / "checkpoints", processes, keep, keep_every),
            log,
            average=WeightAverage(objective.module, 0.9),
            on_log=on_log,
        ).run(batches)
    return objective


def logged(folder: Path, name: str = "loss") -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line[name] for line in lines if name in line}


def saved(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_the_mean_of_unequal_parts_is_that_of_the_whole(tmp_path: Path) -> None:
    """Errors count by rows, the second term by squares of rows: written out for the first step."""
    run(tmp_path / "one", steps=1)
    run(tmp_path / "three", steps=1, objective=Regression(parts=3))
    objective, batch = Regression(), rows(0)
    parts = batch.tensor_split([5, 6])
    terms = [objective.loss(objective.module, part) for part in parts]
    lengths = [len(part) for part in parts]
    squares = sum(length * term[0] for length, term in zip(lengths, terms, strict=True)) / 8
    absolutes = sum(length**2 * term[1] for length, term in zip(lengths, terms, strict=True)) / sum(
        n**2 for n in lengths
    )
    assert logged(tmp_path / "three")[1] == pytest.approx((squares + absolutes).item(), rel=1e-6)
    assert logged(tmp_path / "one")[1] == pytest.approx(objective.loss(objective.module, batch).sum().item(), rel=1e-6)


def test_gradients_are_clipped_to_their_norm_and_logged_before(tmp_path: Path) -> None:
    """With plain gradient descent a step is the rate times the clipped gradient."""
    start = Regression()
    before = torch.cat([value.detach().flatten() for value in start.module.parameters()])
    after = run(
        tmp_path / "clipped",
        steps=1,
        objective=start,
        optimizer=torch.optim.SGD,
        gradient_clip=0.02,
        rate=lambda _: 0.5,
    )
    moved = torch.cat([value.detach().flatten() for value in after.module.parameters()]) - before
    assert moved.norm().item() == pytest.approx(0.5 * 0.02, rel=1e-4)
    assert logged(tmp_path / "clipped", "gradient_norm")[1] > 0.02


def test_lines_of_the_log_are_means_over_the_same_steps_after_a_resume(tmp_path: Path) -> None:
    run(tmp_path / "each", steps=12)
    each = list(logged(tmp_path / "each").values())
    run(tmp_path / "run", steps=7, log_every=4)
    shutil.copytree(tmp_path / "run", tmp_path / "resumed")
    run(tmp_path / "resumed", steps=12, log_every=4, checkpoint_every=100)
    lines = logged(tmp_path / "resumed")
    assert list(lines) == [4, 7, 8, 12]  # what the first process ended with, then whole lines again
    assert lines[12] == pytest.approx(sum(each[8:12]) / 4)


@pytest.mark.parametrize("log_every", [1, 20])
def test_weights_that_explode_between_lines_of_the_log_never_replace_a_checkpoint(
    tmp_path: Path, log_every: int
) -> None:
    with pytest.raises(
        UserError, match=r"stopped being a number at step \d+ \(with row \d+\.0, .* the last good checkpoint is"
    ):
        run(
            tmp_path,
            steps=60,
            rate=lambda step: 0.01 if step < 22 else 1e30,
            optimizer=torch.optim.SGD,
            log_every=log_every,
            checkpoint_every=10,
        )
    assert saved(tmp_path) == ["000010", "000020", "last"]
    for state in (tmp_path / "checkpoints").glob("*/state/*.safetensors"):
        assert all(value.isfinite().all() for value in load_file(state).values())
    run(tmp_path, steps=30, optimizer=torch.optim.SGD, checkpoint_every=10)
    assert len(logged(tmp_path)) >= 10


def test_before_the_first_checkpoint_none_is_called_good(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"The weights stopped being numbers at step 1; there is no checkpoint yet"):
        run(tmp_path, steps=1, rate=lambda _: math.nan)
    assert not list((tmp_path / "checkpoints").glob("[0-9]*"))


def test_a_gradient_that_is_no_number_is_told_from_a_loss(tmp_path: Path) -> None:
    objective = Regression()
    objective.module.weight.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(UserError, match="The gradient stopped being a number at step 1 "):
        run(tmp_path, objective=objective)


def test_the_newest_and_every_nth_stay_and_so_does_what_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "000003_by_hand").mkdir(parents=True)
    (tmp_path / "checkpoints" / "notes.txt").write_text("mine")
    run(tmp_path, steps=23, checkpoint_every=5, keep=2, keep_every=10)
    assert saved(tmp_path) == ["000003_by_hand", "000010", "000020", "000023", "last", "notes.txt"]
    assert json.loads((tmp_path / "checkpoints" / "000023" / "result.json").read_text())


@pytest.mark.parametrize("link", ["lost", "dangling", "file"])
def test_a_run_whose_link_is_not_there_goes_on_from_its_newest_checkpoint(tmp_path: Path, link: str) -> None:
    run(tmp_path / "whole", steps=12)
    run(tmp_path / "run", steps=7)
    last = tmp_path / "run" / "checkpoints" / "last"
    last.unlink()
    if link == "dangling":
        last.symlink_to("000099")
    elif link == "file":
        last.write_text("")
    run(tmp_path / "run", steps=12)
    assert logged(tmp_path / "run") == logged(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing", "no state"])
def test_a_damaged_checkpoint_is_passed_over_aloud(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path / "whole", steps=12)
    run(tmp_path / "run", steps=7)  # checkpoints of steps 5 and 7
    newest = tmp_path / "run" / "checkpoints" / "000007"
    (state,) = (newest / "state").iterdir()
    content = bytearray(state.read_bytes())
    content[-3] ^= 1
    if damage == "cut":
        state.write_bytes(content[:-10])
    elif damage == "flipped":
        state.write_bytes(content)
    elif damage == "missing":
        state.unlink()
    else:
        (newest / "state.json").write_text('{"step": 7')
    run(tmp_path / "run", steps=12)
    assert "000007 is passed over: " in caplog.text
    assert logged(tmp_path / "run") == logged(tmp_path / "whole")


def test_a_run_of_an_earlier_version_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(tmp_path / "whole", steps=8)
    run(tmp_path / "run", steps=5)
    file = tmp_path / "run" / "checkpoints" / "000005" / "state.json"
    state = json.loads(file.read_text())
    state["checksums"] = dict.fromkeys(state.pop("crc32c"), "0" * 32)
    file.write_text(json.dumps(state))
    run(tmp_path / "run", steps=8)
    assert "000005 is of an earlier version" in caplog.text
    assert logged(tmp_path / "run") == logged(tmp_path / "whole")


def test_where_no_checkpoint_can_be_read_nothing_is_overwritten(tmp_path: Path) -> None:
    run(tmp_path, steps=5)
    (tmp_path / "checkpoints" / "000005" / "state.json").unlink()
    with pytest.raises(UserError, match="None of the 1 checkpoints .* state.json is missing.* start a new run"):
        run(tmp_path, steps=12)
    assert saved(tmp_path) == ["000005", "last"]


def test_a_checkpoint_of_something_else_is_refused_by_name(tmp_path: Path) -> None:
    run(tmp_path, steps=5)
    with pytest.raises(UserError, match="is of linear, this run is of cubic"):
        run(tmp_path, steps=12, objective=Regression(kind="cubic"))


@pytest.mark.parametrize("request_", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
@pytest.mark.usefixtures("interruptible")
def test_a_request_to_stop_ends_the_step_and_saves_it(tmp_path: Path, request_: signal.Signals) -> None:
    def asked(first: int, state: dict[str, Any]) -> Generator[Batch[Tensor]]:
        for batch in stream(first, state):
            if batch.step == 2:
                signal.raise_signal(request_)
            yield batch

    with pytest.raises(StoppedError) as stopped:
        run(tmp_path / "run", batches=asked)
    assert stopped.value.request == request_
    assert saved(tmp_path / "run") == ["000003", "last"]
    run(tmp_path / "run")
    run(tmp_path / "whole")
    assert logged(tmp_path / "run") == logged(tmp_path / "whole")


def test_a_full_disk_is_a_sentence_and_older_checkpoints_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, steps=5)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Regression, "save", full)
    with pytest.raises(UserError, match="A checkpoint cannot be written to .*No space left on device.*older ones stay"):
        run(tmp_path, steps=12)
    assert saved(tmp_path) == ["000005", "last"]
