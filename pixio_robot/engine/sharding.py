"""A model of which each process holds a share (FSDP2), and blocks whose activations are computed twice."""

import functools
import itertools

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

_REPLICAS, _SHARES = "replicas", "shares"


def checkpoint_activations(module: nn.Module) -> None:
    """Keep only the inputs of transformer blocks for the backward pass and compute the rest again (arXiv 1604.06174)."""
    for block in module.modules():
        if isinstance(block, Block):
            # Blocks draw nothing themselves (see stochastic_depth), so no random state has to be kept.
            recomputed = functools.partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
            setattr(block, "forward", recomputed)  # noqa: B010 (its type is wider than the method's)


def shard(
    module: nn.Module,
    device: torch.device,
    mesh: tuple[int, int] | None = None,
    gathered: torch.dtype = torch.float32,
) -> None:
    """Share a module out among all processes with FSDP2, one unit per transformer block.

    A module on the meta device stays without values; see `materialise`. While a block computes, the next one is gathered.

    Args:
        module: With timm's blocks, in the order in which they compute.
        device: Of the processes.
        mesh: Groups of processes, each of which holds the module once, and processes of a group; None is one group.
        gathered: Type in which blocks travel; their gradients are summed in float32. With float32 losses are those of an
            unsharded module; bfloat16 halves the traffic, and is for a residual stream in bfloat16.
    """
    replicas, shares = mesh or (1, distributed.get_world_size())
    grid = init_device_mesh(device.type, (replicas, shares), mesh_dim_names=(_REPLICAS, _SHARES))
    used = grid if replicas > 1 else grid[_SHARES]
    rounds = MixedPrecisionPolicy(gathered, torch.float32, cast_forward_inputs=False)
    blocks = [block for block in module.modules() if isinstance(block, Block)]
    units = [fully_shard(block, mesh=used, mp_policy=rounds) for block in blocks]
    fully_shard(module, mesh=used)
    for unit, following in itertools.pairwise(units):
        unit.set_modules_to_forward_prefetch([following])


def sum_gradients(module: nn.Module, *, now: bool) -> None:
    """Say of a sharded module whether its next backward pass sums gradients over the processes, or only adds up its own."""
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(now)


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
    own = _share_of(module) if device.type == "cpu" else 0
    torch.manual_seed(seed * 1_000_003 + own)
    initialise = module.initialise
    assert callable(initialise)
    initialise()


def _share_of(module: nn.Module) -> int:
    """Return which share of a sharded module this process holds; every group of processes has each of them once."""
    meshes = (value.device_mesh for value in module.parameters() if isinstance(value, DTensor))
    return next(meshes).get_local_rank(_SHARES)


def whole(tensor: Tensor) -> Tensor:
    """Return the whole of a possibly sharded tensor; all processes must call this together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own_shard(tensor: Tensor) -> Tensor:
    """Return this process's part of a possibly sharded tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
