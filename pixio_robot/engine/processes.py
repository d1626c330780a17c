"""One run on one process or on many: which process this is, and what all agree on.

`torchrun` starts the same command several times and tells each process who it is by environment variables; `accelerate
launch` does the same, and nothing else of either is used.
"""

import atexit
import functools
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore
from torch.nn.parallel import DistributedDataParallel

from pixio_robot.common.errors import UserError

# Steps are taken together: a process that does not come is lost. The others end, and their launcher may start all anew.
_STEP_PATIENCE = timedelta(minutes=10)
# One process may collect, decode or evaluate for hours while the others wait.
PATIENCE = timedelta(hours=12)
_ACCELERATE_NAMES = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class Processes:
    """The processes of a run as one of them sees them.

    Attributes:
        rank: Number of this process.
        count: Number of processes.
        distribution: `none`, `ddp` (the model whole in each) or `fsdp` (shared out, see `sharding`).
        device: Where this process computes.
        patient: Group by which all wait for each other, and for what one of them does alone; None for one process.
        launcher: Number of the process that started this one among others.
    """

    rank: int
    count: int
    distribution: str
    device: torch.device
    patient: Any = None
    launcher: int | None = None

    @property
    def main(self) -> bool:
        """Whether this is the process that logs, draws and writes results."""
        return self.rank == 0

    @property
    def abandoned(self) -> bool:
        """Whether the launcher is gone, killed before it could say anything."""
        return self.launcher is not None and os.getppid() != self.launcher

    @property
    def sharded(self) -> bool:
        """Whether no process holds the whole model."""
        return self.distribution == "fsdp"

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            distributed.barrier(self.patient)

    @contextmanager
    def one_after_another(self) -> Iterator[None]:
        """Let the main process do the body first, then one process of each other machine, then all the rest.

        For files that the first one makes and the others find made, whether or not machines share a disk.
        """
        local_first = int(os.environ.get("LOCAL_RANK", self.rank)) == 0
        turn = 0 if self.main else 1 if local_first else 2
        for number in range(3):
            if number == turn:
                yield
            if number < 2:
                self.wait()

    def share[T](self, value: T) -> T:
        """Return the main process's value (plain data)."""
        if self.count == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0, group=self.patient, device=torch.device("cpu"))
        return values[0]

    def gather[T](self, value: T) -> list[T]:
        """Return the values (plain data) of all processes, by rank."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value, self.patient)
        return values

    def add_up(self, numbers: Sequence[float]) -> list[float]:
        """Return the sums over the processes; no wait for the accelerator, since they travel between CPUs."""
        if self.count == 1:
            return list(numbers)
        total = torch.tensor(numbers, dtype=torch.float64)
        distributed.all_reduce(total)
        return total.tolist()

    def sum(self, value: Tensor) -> Tensor:
        """Add up a tensor over the processes, on its device."""
        if self.count == 1:
            return value
        total = value.clone()
        distributed.all_reduce(total)
        return total

    def wrap(self, module: nn.Module, *, weights_rest: bool = False) -> nn.Module:
        """Return what to call for the forward pass of a module whose gradients are to be averaged.

        Args:
            module: On its device.
            weights_rest: Whether some weights may take no part in a step, as those of an encoder that is frozen at first.
                Looking for them costs time in every step.
        """
        if self.distribution != "ddp":
            return module
        devices = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(
            module, devices, gradient_as_bucket_view=True, find_unused_parameters=weights_rest
        )


def join_processes(device: str = "cpu", distribution: str = "auto", precision: str = "float32") -> Processes:
    """Find the other processes of this run, if there are any; they stay together until this one ends.

    Args:
        device: torch device; under torchrun `cuda` is the GPU of this process.
        distribution: `none`, `ddp`, `fsdp`, or `auto`: `ddp` for several processes and `none` for one.
        precision: Of the forward pass; `accelerate launch` may have been told another, which is refused.

    Raises:
        UserError: Distribution and number of processes, processes and GPUs, or precisions do not fit.
    """
    count, launched = int(os.environ.get("WORLD_SIZE", "1")), "RANK" in os.environ
    if distribution == "auto":
        distribution = "ddp" if count > 1 else "none"
    if distribution == "none" and count > 1:
        raise UserError(
            f"{count} processes were started for distribution=none: give ddp or fsdp, or start one process."
        )
    if distribution != "none" and not launched:
        raise UserError(
            f"distribution={distribution} needs torchrun: start the same command with `torchrun … <script>`."
        )
    launched_with = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if launched_with not in ("no", _ACCELERATE_NAMES[precision]):
        wanted = {name: ours for ours, name in _ACCELERATE_NAMES.items()}.get(launched_with, "float32")
        raise UserError(
            f"accelerate was launched with --mixed_precision={launched_with}, but precision={precision}: leave the former "
            f"out and set precision={wanted}."
        )
    if distribution == "fsdp" and precision == "float16":
        raise UserError("float16 is not made for fsdp: choose precision=bfloat16 or distribution=ddp.")
    place = torch.device(device)
    if place.type == "cuda" and distribution != "none":
        _check_one_gpu_each()
        place = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(place)
    if distribution == "none":
        return Processes(0, 1, distribution, place)
    if not distributed.is_initialized():  # a sweep's jobs follow each other in the same processes
        # Decisions and plain values travel by gloo: they must not wait for the accelerator.
        backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
        store, rank = _store_of_launcher(), int(os.environ["RANK"])
        met: dict[str, Any] = (
            {} if store is None else {"store": meet(store, rank, count), "rank": rank, "world_size": count}
        )
        distributed.init_process_group(backend, timeout=_STEP_PATIENCE, **met)
        atexit.register(distributed.destroy_process_group)
    return Processes(distributed.get_rank(), count, distribution, place, _patient_group(), os.getppid())


@functools.cache
def _patient_group() -> Any:  # noqa: ANN401 (torch's type of groups)
    return distributed.new_group(backend="gloo", timeout=PATIENCE)


def _store_of_launcher() -> Store | None:
    """Return the store of torchrun, where processes meet; None where they have to make one."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(*address, is_master=False, timeout=_STEP_PATIENCE)


def meet(store: Store, rank: int, count: int) -> Store:
    """Return a part of a launcher's store that no earlier attempt of these processes has written to.

    torchrun restarts processes in front of the store of the ones before, where the new ones would find addresses of processes
    that are gone. So the first process draws a name for this attempt and answers whoever asks for it, until all have come.
    """
    own = uuid.uuid4().hex
    if rank:
        store.set(f"pixio/asked/{rank}", own)
        attempt = store.get(f"pixio/answer/{own}").decode()
        store.set(f"pixio/{attempt}/{rank}", "here")
        return PrefixStore(attempt, store)
    missing, deadline = set(range(1, count)), time.monotonic() + _STEP_PATIENCE.total_seconds()
    while missing and time.monotonic() < deadline:
        for other in missing:
            if store.check([f"pixio/asked/{other}"]):  # perhaps by a process that is gone, whom an answer does not hurt
                store.set(f"pixio/answer/{store.get(f'pixio/asked/{other}').decode()}", own)
        time.sleep(0.02)
        missing = {other for other in missing if not store.check([f"pixio/{own}/{other}"])}
    return PrefixStore(own, store)


def _check_one_gpu_each() -> None:
    """Refuse more processes than this machine has GPUs, where it has any."""
    processes, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if 0 < gpus < processes:
        raise UserError(
            f"{processes} processes were started on a machine with {gpus} GPU{'s' if gpus > 1 else ''}, and each needs its "
            f"own: start at most {gpus} (--nproc-per-node {gpus}), or put CUDA_VISIBLE_DEVICES= before the command to "
            "compute on the CPU."
        )
