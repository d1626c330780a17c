"""One run on one process or on many: which process this is, how the model is shared out, what all agree on.

`torchrun` and `accelerate launch` start the same command several times and tell each process who it is by environment
variables; nothing else here depends on them.
"""

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from pixio_robot.common.errors import UserError
from pixio_robot.engine.gpus import check_one_gpu_each
from pixio_robot.pretraining.config import TrainingConfig

# One process may decode images for hours while the others wait.
_PATIENCE = timedelta(hours=12)


@dataclass(frozen=True)
class Processes:
    """The processes of a run as one of them sees them.

    Attributes:
        rank: Number of this process.
        count: Number of processes.
        distribution: `none`, `ddp` or `fsdp`.
        device: Where this process computes.
    """

    rank: int
    count: int
    distribution: str
    device: torch.device

    @property
    def main(self) -> bool:
        """Whether this is the process that logs, draws and writes results."""
        return self.rank == 0

    @property
    def sharded(self) -> bool:
        """Whether no process holds the whole model."""
        return self.distribution == "fsdp"

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            distributed.barrier()

    @contextmanager
    def first_of_machine(self) -> Iterator[None]:
        """Let one process of each machine do the body first, for caches that the others then find made."""
        first = int(os.environ.get("LOCAL_RANK", self.rank)) == 0
        if not first:
            self.wait()
        yield
        if first:
            self.wait()

    def share[T](self, value: T) -> T:
        """Return the main process's value (plain data)."""
        if self.count == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]

    def gather[T](self, value: T) -> list[T]:
        """Return the values (plain data) of all processes, by rank."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values

    def decide(self, *flags: bool) -> list[bool]:
        """Return the main process's decisions; no wait for the accelerator, since they travel between CPUs."""
        if self.count == 1:
            return list(flags)
        decisions = torch.tensor(flags, dtype=torch.uint8)
        distributed.broadcast(decisions, src=0)
        return [bool(decision) for decision in decisions]

    def mean(self, value: Tensor) -> Tensor:
        """Average a tensor over the processes, on its device."""
        if self.count == 1:
            return value
        total = value.clone()
        distributed.all_reduce(total)
        return total / self.count

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return what to call for the forward pass of a module whose gradients are to be averaged."""
        if self.distribution != "ddp":
            return module
        devices = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, devices, gradient_as_bucket_view=True)


@contextmanager
def join_processes(config: TrainingConfig) -> Iterator[Processes]:
    """Find the other processes of this run, and part from them at the end.

    Raises:
        UserError: Distribution and number of processes, batch and number of processes, or processes and GPUs do not fit.
    """
    count, launched = int(os.environ.get("WORLD_SIZE", "1")), "RANK" in os.environ
    distribution = config.distribution
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
    if config.batch_size % (count * config.accumulation):
        raise UserError(
            f"A batch of {config.batch_size} cannot be shared by {count} processes in {config.accumulation} equal parts "
            "each: choose a batch_size that is a multiple of both together."
        )
    if distribution == "fsdp" and config.precision == "float16":
        raise UserError("float16 is not made for fsdp: choose precision=bfloat16 or distribution=ddp.")
    device = torch.device(config.device)
    if device.type == "cuda" and distribution != "none":
        check_one_gpu_each()
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if distribution == "none":
        yield Processes(0, 1, distribution, device)
        return
    # Decisions and plain values travel by gloo: they must not wait for the accelerator.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield Processes(distributed.get_rank(), count, distribution, device)
    finally:
        distributed.destroy_process_group()


def checkpoint_activations(module: nn.Module) -> None:
    """Keep only the inputs of transformer blocks for the backward pass and compute the rest again (arXiv 1604.06174)."""
    for block in module.modules():
        if isinstance(block, Block):
            # Blocks draw nothing themselves (see stochastic_depth), so no random state has to be kept.
            recomputed = functools.partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
            setattr(block, "forward", recomputed)  # noqa: B010 (its type is wider than the method's)


def shard(module: nn.Module, device: torch.device) -> None:
    """Share a module out among all processes with FSDP2, one unit per transformer block.

    A module on the meta device stays without values; see `materialise`. Blocks are gathered in float32 and autocast
    rounds them, so that losses are those of an unsharded module; gathering bfloat16 would halve the traffic.
    """
    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    for block in module.modules():
        if isinstance(block, Block):
            fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)


def materialise(module: nn.Module, device: torch.device, seed: int) -> None:
    """Give a sharded module on the meta device its initial values, each process drawing its own shards only.

    The bounds of the draws follow from the whole parameters' shapes, so their statistics are those of an unsharded
    initialisation; the numbers are others.

    Args:
        module: Sharded, with an `initialise()` that sets all parameters.
        device: Where the shards go.
        seed: Of the run.
    """
    module.to_empty(device=device)
    # torch draws a CPU shard from the process's own generator; on GPUs DTensor keeps the processes apart itself.
    own = distributed.get_rank() if device.type == "cpu" else 0
    torch.manual_seed(seed * 1_000_003 + own)
    initialise = module.initialise
    assert callable(initialise)
    initialise()


def whole(tensor: Tensor) -> Tensor:
    """Return the whole of a possibly sharded tensor; all processes must call this together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own_shard(tensor: Tensor) -> Tensor:
    """Return this process's part of a possibly sharded tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
