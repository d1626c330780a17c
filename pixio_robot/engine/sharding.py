"""A model of which each process holds a share (FSDP2), and blocks whose activations are computed twice."""

import functools

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint


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
