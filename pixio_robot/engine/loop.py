"""The training loop: one optimiser step after another, on one process or many, resumable at any checkpoint.

Policies, masked autoencoders, distillation and heads on frozen features train by it; they differ in their `Objective`.
"""

import signal
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel

from pixio_robot.common.errors import UserError
from pixio_robot.common.progress import phase_progress
from pixio_robot.common.signals import StoppedError
from pixio_robot.engine.average import WeightAverage
from pixio_robot.engine.checkpoints import Checkpoints
from pixio_robot.engine.objective import Batch, Objective, all_finite, seed_step, trainable_tensors
from pixio_robot.engine.optimizers import optimizer_tensors
from pixio_robot.engine.processes import Processes
from pixio_robot.engine.run_log import RunLog
from pixio_robot.engine.sharding import own_shard, sum_gradients, whole
from pixio_robot.engine.step_log import Step, StepLog
from pixio_robot.engine.stopping import StopRequest
from pixio_robot.engine.threads import tuner_for

Precision = Literal["float32", "bfloat16", "float16"]

_NAMED = 8  # samples of a batch in a message; the log has all


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long, how fast and how often.

    Attributes:
        steps: Optimiser steps.
        learning_rates: Of each of the optimiser's parameter groups, at a step from 0.
        batch_size: Samples of a step, of all processes.
        precision: Of forward passes; weights stay in float32.
        gradient_clip: Largest gradient norm; None clips nothing.
        seed: Decides what torch draws within steps.
        log_every: Steps of which a line of the log is the mean.
        log_seconds: Losses are read from the device no more often than this.
        checkpoint_every: Steps between checkpoints.
        checkpoint_minutes: Time between them.
        weights_rest: See `Processes.wrap`.
        peak_per_second: Samples a second that the device would do if it did matrix products alone; the log says which share of it
            is reached.
    """

    steps: int
    learning_rates: Callable[[int], Sequence[float]]
    batch_size: int
    precision: Precision = "float32"
    gradient_clip: float | None = None
    seed: int = 0
    log_every: int = 1
    log_seconds: float = 0.0
    checkpoint_every: int | None = None
    checkpoint_minutes: float | None = None
    weights_rest: bool = False
    peak_per_second: float | None = None


@dataclass
class Training[D, P]:
    """One training: what is minimised, and where it is logged and saved.

    Attributes:
        objective: Its module is on its device.
        optimizer: Over the module's parameters.
        plan: How long, how fast and how often.
        processes: Who takes part.
        checkpoints: Where the run is saved, and resumed from.
        log: Receives the loss, gradient norm and learning rate.
        average: Moving average of the weights, saved beside them.
        console: Where the progress is shown.
        on_checkpoint: Called by the main process after a checkpoint was begun, with the finished steps; the objective's
            module holds the weights that are saved.
        evaluate: Called by the main process after a step, with the finished steps, outside of the watch for requests to
            stop.
    """

    objective: Objective[D, P]
    optimizer: torch.optim.Optimizer
    plan: Plan
    processes: Processes
    checkpoints: Checkpoints
    log: RunLog
    average: WeightAverage | None = None
    console: Console = field(default_factory=lambda: Console(quiet=True))
    on_checkpoint: Callable[[int], None] = lambda step: None
    on_log: Callable[[int, float], None] = lambda step, loss: None
    evaluation_due: Callable[[int], bool] = lambda step: False
    evaluate: Callable[[int], None] = lambda step: None

    def __post_init__(self) -> None:
        """Prepare what a step needs."""
        device = self.processes.device.type
        self._scaler = GradScaler(device, enabled=self.plan.precision == "float16")
        self._parameters = [value for value in self.objective.module.parameters() if value.requires_grad]
        objective, plan = self.objective, self.plan
        self._steps = StepLog(
            objective.phase,
            objective.unit,
            plan.batch_size,
            plan.log_every,
            plan.log_seconds,
            plan.peak_per_second,
            norms_are_finite=not self._scaler.is_enabled(),
            processes=self.processes,
            log=self.log,
            on_log=self.on_log,
            on_nonsense=self._end_badly,
        )

    def run(self, batches: Callable[[int, dict[str, Any]], Generator[Batch[D]]]) -> None:
        """Train from the newest checkpoint, or from the beginning, to the last step; all processes call this together.

        Args:
            batches: Yields the batches from a step on, given the merged `Batch.state` of the step before.

        Raises:
            UserError: The checkpoint is of another run; or loss, gradients or weights stopped being numbers.
            StoppedError: A process was asked to stop; the step is finished and saved.
        """
        plan, objective = self.plan, self.objective
        first, samples = self._resume()
        self.log.begin_curves(objective.phase, first)
        if self.processes.main and first and self.evaluation_due(first):  # stopped while evaluating
            self.evaluate(first)
        self.processes.wait()
        self._model = self.processes.wrap(objective.module, weights_rest=plan.weights_rest)
        objective.module.train()
        stream = batches(first, samples)
        asked: signal.Signals | None = None
        self._steps.begin()
        saved = time.monotonic()
        tuner = tuner_for(self.processes.device)
        with self._settled(), phase_progress(self.console) as progress:
            bar = progress.add_task(objective.phase, total=plan.steps, completed=first, note="")
            for done in range(first + 1, plan.steps + 1):
                with StopRequest() as request:
                    began = time.monotonic()
                    batch = next(stream)
                    waited = time.monotonic() - began
                    samples = batch.state
                    self._steps.note(self._step(batch), batch.skipped, waited)
                    tuner.note(time.monotonic() - began)
                    asked = asked or request.signal or (signal.SIGTERM if self.processes.abandoned else None)
                    stop, flush, due, evaluates = self._decide(done, asked is not None, saved)
                    if flush or due:
                        line = self._steps.flush(done, everything=due and (stop or done == plan.steps))
                        progress.update(bar, completed=done)
                        if line is not None:
                            progress.update(bar, note=line)
                    if due:
                        self._save(done, samples)
                        saved = time.monotonic()
                asked = asked or request.signal
                if stop:
                    self.checkpoints.wait()
                    raise StoppedError(asked or signal.SIGTERM)
                if evaluates:
                    before = time.monotonic()
                    self.checkpoints.wait()
                    if self.processes.main:
                        progress.update(bar, note="evaluation")
                        self.evaluate(done)
                    self.processes.wait()
                    self._steps.leave_out(time.monotonic() - before)
        stream.close()
        self.checkpoints.wait()
        if asked is not None:
            raise StoppedError(asked)

    @contextmanager
    def _settled(self) -> Iterator[None]:
        threads = torch.get_num_threads()
        try:
            yield
        except BaseException:
            self.checkpoints.settle()
            raise
        finally:
            torch.set_num_threads(threads)

    def _resume(self) -> tuple[int, dict[str, Any]]:
        """Restore the newest checkpoint; return the steps done and the states of the samples."""
        plain, samples = self.checkpoints.restore(self._tensors(), self.objective.identity())
        if plain["step"]:
            self._scaler.load_state_dict(plain["scale"])
            if self.average is not None:
                self.average.updates = plain["step"]
        return plain["step"], samples

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"model.{name}": value for name, value in trainable_tensors(self.objective.module).items()}
        if self.average is not None:
            tensors |= {f"average.{name}": value for name, value in self.average.tensors.items()}
        return tensors | optimizer_tensors(self.optimizer, self.objective.module)

    def _step(self, batch: Batch[D]) -> Step:
        """Do one optimiser step; its numbers stay on the device."""
        plan, objective = self.plan, self.objective
        seed_step(plan.seed, batch.step + 1, self.processes.rank)
        objective.begin_step(batch.step + 1)
        rates = plan.learning_rates(batch.step)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        parts = objective.parts(batch)
        shares = self._shares([objective.weights(part) for part in parts])
        losses = []
        for number, (part, share) in enumerate(zip(parts, shares, strict=True), 1):
            if isinstance(self._model, DistributedDataParallel):
                # Gradients are averaged once, with the last part; the forward pass already has to know.
                self._model.require_backward_grad_sync = number == len(parts)
            sum_gradients(self._model, now=number == len(parts))
            device, precision = self.processes.device.type, getattr(torch, plan.precision)
            with torch.autocast(device, precision, enabled=plan.precision != "float32"):
                terms = objective.loss(self._model, part).float()
            loss = (terms * terms.new_tensor(share)).sum()
            self._scaler.scale(loss).backward()
            losses.append(loss.detach())
        self._scaler.unscale_(self.optimizer)
        norm = self._clip()
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update()
        # The processes' gradients are averaged, hence so are their losses.
        loss = self.processes.sum(torch.stack(losses).sum()) / self.processes.count
        return Step(batch.step + 1, loss, norm, rates[0], batch.names)

    def _shares(self, weights: list[Sequence[float]]) -> list[list[float]]:
        """Return what to multiply each term of each part's mean with, so that the mean over processes is the batch's."""
        if len(weights) == self.processes.count == 1:
            return [[1.0] * len(weights[0])]
        totals = self.processes.add_up([sum(term) for term in zip(*weights, strict=True)])
        count = self.processes.count
        return [[count * own / max(total, 1.0) for own, total in zip(part, totals, strict=True)] for part in weights]

    def _clip(self) -> Tensor:
        gradients = [value.grad for value in self._parameters if value.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.plan.gradient_clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self._parameters, self.plan.gradient_clip, norm)
        return whole(norm.detach())

    def _decide(self, done: int, asked: bool, saved: float) -> tuple[bool, bool, bool, bool]:
        """Return whether to stop, read the losses, save and evaluate: what any process is asked and the main one's clock says."""
        plan, now, last = self.plan, time.monotonic(), done == self.plan.steps
        evaluates = self.processes.main and self.evaluation_due(done)
        due = last or evaluates or (plan.checkpoint_every is not None and done % plan.checkpoint_every == 0)
        if self.processes.main and plan.checkpoint_minutes is not None:
            due = due or now - saved > 60 * plan.checkpoint_minutes
        flush = self.processes.main and self._steps.is_due(done)
        totals = self.processes.add_up([asked, flush or last, due, evaluates])
        stop, flush, due, evaluates = (total > 0 for total in totals)
        stop = stop and not last
        return stop, flush, due or stop, evaluates and not stop

    def _save(self, done: int, samples: dict[str, Any]) -> None:
        """Begin to write a checkpoint, unless the weights are not numbers, which must not replace good ones."""
        finite = all_finite([own_shard(value) for value in self._tensors().values() if value.is_floating_point()])
        if self.processes.add_up([float(finite)]) != [self.processes.count]:
            self._end_badly(self._steps.newest, "The weights stopped being numbers", done)
        plain = {"identity": self.objective.identity(), "scale": self._scaler.state_dict()}
        save_results = None if self.processes.sharded else self._save_results
        self.checkpoints.save(done, self._tensors(), plain, samples, save_results)
        if self.processes.main:
            self.on_checkpoint(done)

    def _save_results(self, folder: Path) -> None:
        if self.average is None:
            self.objective.save(folder)
        else:
            with self.average.applied():
                self.objective.save(folder)

    def _end_badly(self, step: Step | None, reason: str, done: int = 0) -> None:
        """Say at which step and with which samples numbers were lost, and from which checkpoint one can go on."""
        self.checkpoints.wait()
        number = step.number if step is not None else done
        names = [name for names in self.processes.gather(step.names if step is not None else []) for name in names]
        self.log.write(self.objective.phase, event="stopped", reason=reason, at_step=number, samples=names)
        named = f" (with {', '.join(names[:_NAMED])}" if names else ""
        named += f" and {len(names) - _NAMED} more in log.jsonl)" if len(names) > _NAMED else ")" if names else ""
        kept = self.checkpoints.newest()
        good = f"the last good checkpoint is {kept}" if kept else "there is no checkpoint yet"
        raise UserError(
            f"{reason} at step {number}{named}; {good}. A lower learning rate may help; or look for non-finite values in "
            f"the data."
        )
