"""The processes of a run as accelerate knows them: started by `accelerate launch` or torchrun, or one alone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, broadcast_object_list
from torch import Tensor

from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.common.precision import warn_of_slow_bfloat16
from pixio_robot.engine.gpus import check_one_gpu_each

PRECISIONS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
"""Our names of precisions, and accelerate's."""

# One process may collect, encode or evaluate for hours while the others wait.
_PATIENCE = timedelta(hours=12)


def open_accelerator(precision: str = "float32", *, weights_rest: bool = False) -> Accelerator:
    """Find the other processes of this run, if there are any, and choose device and precision.

    Args:
        precision: Of forward passes: `float32`, or `bfloat16` or `float16` with weights kept in float32.
        weights_rest: Whether weights that train may take no part in a step: those of an encoder that is held frozen
            at first, or has a head that is not used. Looking for them costs time in every step.

    Raises:
        UserError: The precision is unknown, or needs a GPU that is not there, or contradicts `accelerate launch`;
            or there are more processes than GPUs, or they were launched to share the weights out among them.
    """
    if precision not in PRECISIONS:
        raise UserError(f"Unknown trainer.precision {precision!r}. {nearest_name(precision, PRECISIONS)}")
    launched_with = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if launched_with not in ("no", PRECISIONS[precision]):
        wanted = {name: ours for ours, name in PRECISIONS.items()}.get(launched_with, "float32")
        raise UserError(
            f"accelerate was launched with --mixed_precision={launched_with}, but trainer.precision={precision}: "
            f"leave the former out and set trainer.precision={wanted}."
        )
    check_one_gpu_each()
    # accelerate refuses to change the precision within a process, where a sweep runs one job after another.
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        mixed_precision=PRECISIONS[precision],
        cpu=not torch.cuda.is_available(),  # no other accelerator is tested
        kwargs_handlers=[
            InitProcessGroupKwargs(timeout=_PATIENCE),
            DistributedDataParallelKwargs(find_unused_parameters=weights_rest),
        ],
    )
    if precision == "float16" and accelerator.device.type == "cpu":
        raise UserError(
            "trainer.precision=float16 needs a GPU, and there is none: set trainer.precision=bfloat16 or float32."
        )
    if precision == "bfloat16" and accelerator.device.type == "cpu" and accelerator.is_main_process:
        warn_of_slow_bfloat16("trainer.precision")
    if accelerator.distributed_type not in (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU):
        raise UserError(
            f"Policies are trained with a whole copy in each process, not with {accelerator.distributed_type.value}: "
            f"launch with `accelerate launch --multi_gpu` or torchrun."
        )
    return accelerator


def share[T](value: T) -> T:
    """Return the main process's value (plain data) in every process."""
    values: list[Any] = [value]
    broadcast_object_list(values)
    return values[0]


@contextmanager
def main_first(accelerator: Accelerator) -> Iterator[None]:
    """Let the main process do the body first, then one process of each other machine, then all the rest.

    For files that the first one makes and the others find made, whether or not machines share a disk.
    """
    with accelerator.main_process_first(), accelerator.local_main_process_first():
        yield


def own_part(batch: dict[str, Any], accelerator: Accelerator) -> tuple[dict[str, Any], float]:
    """Return this process's part of a step's batch, and what to multiply the mean loss of that part with.

    The mean over processes of the loss, and of its gradients, is then that of the whole batch, also where the parts
    hold unequal numbers of actions within their episodes, over which the policies' losses are means.

    Raises:
        UserError: There are more processes than windows in the batch.
    """
    count = accelerator.num_processes
    if count == 1:
        return batch, 1.0
    valid = ~batch["action_is_pad"]
    if len(valid) < count:
        raise UserError(
            f"A batch of {len(valid)} windows cannot be shared by {count} processes: set trainer.batch_size to "
            f"{count} or more, or start fewer processes."
        )
    own = slice(accelerator.process_index, None, count)
    weight = count * valid[own].sum().item() / valid.sum().item()
    return {key: value[own] for key, value in batch.items()}, weight


def mean_over_processes(value: Tensor, accelerator: Accelerator) -> float:
    """Return the mean of the processes' values."""
    mean = accelerator.reduce(value, "mean")
    assert isinstance(mean, Tensor)
    return mean.item()


def seed_step(seed: int, step: int, accelerator: Accelerator) -> None:
    """Let all that torch draws in a step (dropout, noise of diffusion) follow from run, step and process alone.

    A resumed run then draws the same, whatever happened in between.
    """
    state = np.random.SeedSequence([seed, step, accelerator.process_index]).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0] >> np.uint64(1)))
