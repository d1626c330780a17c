"""What hardware the pretraining of each Pixio variant needs, computed from the model.

Weights, gradients and Adam's two moments are float32, 16 bytes per parameter. FSDP shares these among the GPUs and
gathers one block at a time, and the next ahead of it; everything outside of the blocks stays gathered.

Activations are counted: a forward pass of the real module runs on fake tensors (shapes without values) under bfloat16
autocast, and every tensor that it keeps for the backward pass is counted once, parameters aside. The weights that
autocast rounds to bfloat16 are among them, once per pass; the rest grows with the images. With activation
checkpointing, what a block keeps is replaced by its input, and one block at a time has all again.

Left out: memory of the framework and of communication buffers, fragmentation, data loading. One part in ten of the
GPU's memory is set aside for them.
"""

import functools
import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pixio_robot.pretraining.model.mae import PixioMAE
from pixio_robot.pretraining.model.weights import create_encoder

BYTES_PER_PARAMETER = 16  # float32 weight, gradient and two moments
USABLE = 0.9
_OUTSIDE = ""  # key of what is kept outside of all blocks
GIB = 2**30


@dataclass(frozen=True)
class PassMemory:
    """Bytes that a forward pass keeps for the backward pass."""

    fixed: int
    """Whatever the number of images: weights rounded to bfloat16."""
    per_image: int
    """For every image."""


@dataclass(frozen=True)
class Needs:
    """Memory needs of a module, in bytes."""

    parameters: int
    block_parameters: int
    """Of the largest block, the unit that FSDP gathers."""
    loose_parameters: int
    """Outside of all blocks; FSDP keeps them gathered throughout a pass."""
    whole: PassMemory
    """Everything is kept."""
    checkpointed: PassMemory
    """Only block inputs are kept; includes the block that is being computed again."""

    def state(self, gpus: int) -> float:
        """Weights, gradients, moments of one GPU, sharded over all of them, and what is gathered at a time."""
        sharded = BYTES_PER_PARAMETER * self.parameters / gpus
        if gpus == 1:
            return sharded
        gathered = 2 * self.block_parameters + self.loose_parameters
        return sharded + 4 * (gathered + self.block_parameters + self.loose_parameters)  # also unreduced gradients

    def images(self, gpus: int, memory: float, checkpointing: bool) -> int:
        """Images that fit on a GPU of that many bytes at once."""
        kept = self.checkpointed if checkpointing else self.whole
        return max(0, math.floor((USABLE * memory - self.state(gpus) - kept.fixed) / kept.per_image))


class KeptTensors:
    """Bytes of distinct storages kept for the backward pass, by the block that keeps them."""

    def __init__(self, module: nn.Module) -> None:
        """Count for a module, but not its parameters."""
        self.bytes: dict[str, int] = defaultdict(int)
        self.inputs: dict[str, int] = {}
        self._module = module
        self._seen = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
        self._alive: list[Tensor] = []  # so that no storage is counted under another's freed address
        self._block = _OUTSIDE

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count in the body."""
        hooks = []
        for name, block in self._module.named_modules():
            if isinstance(block, Block):
                hooks.append(block.register_forward_pre_hook(functools.partial(self._enter_block, name)))
                hooks.append(block.register_forward_hook(self._leave_block))
        try:
            with torch.autograd.graph.saved_tensors_hooks(self._keep, lambda kept: kept):
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def _enter_block(self, name: str, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._block = name
        self.inputs[name] = inputs[0].untyped_storage().nbytes()

    def _leave_block(self, *_: object) -> None:
        self._block = _OUTSIDE

    def _keep(self, kept: Tensor) -> Tensor:
        storage = kept.untyped_storage()
        if storage._cdata not in self._seen:
            self._seen.add(storage._cdata)
            self._alive.append(kept)
            self.bytes[self._block] += storage.nbytes()
        return kept


def kept_bytes(mae: PixioMAE, images: int, size: int, bfloat16: bool) -> tuple[int, int]:
    """Run a forward pass and count what it keeps for the backward pass.

    Args:
        mae: In training mode, real or fake.
        images: Batch.
        size: Side of the images in pixels.
        bfloat16: Whether to use autocast.

    Returns:
        Bytes with everything kept, and with activation checkpointing.
    """
    grid = (size // mae.patch, size // mae.patch)
    patches = grid[0] * grid[1]
    masked = round(mae.mask_ratio * (patches // mae.mask_block**2)) * mae.mask_block**2
    # Which patches are masked does not matter for sizes, and fake tensors have no values to sort.
    order_BN = torch.arange(patches).expand(images, -1)
    visible_BV, masked_BM = order_BN[:, masked:].contiguous(), order_BN[:, :masked].contiguous()
    counter = KeptTensors(mae)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16), counter.counting():
        kept = mae.compare(torch.zeros(images, 3, size, size), visible_BV, masked_BM, grid)
    del kept
    inside = {name: value for name, value in counter.bytes.items() if name != _OUTSIDE}
    outside = counter.bytes[_OUTSIDE]
    return outside + sum(inside.values()), outside + sum(counter.inputs.values()) + max(inside.values())


def needs(variant: str, size: int, decoder: tuple[int, int, int], mask_ratio: float, mask_block: int) -> Needs:
    """Compute the memory needs of pretraining a variant.

    Args:
        variant: timm name of the encoder.
        size: Side of the images in pixels.
        decoder: Width, depth, heads.
        mask_ratio: Fraction masked.
        mask_block: Side of a mask block in patches.
    """
    kept = []
    for images in (1, 2):
        with torch.device("meta"):
            mae = PixioMAE(create_encoder(variant, size), *decoder, mask_ratio, mask_block)
        with FakeTensorMode(allow_non_fake_inputs=True):
            mae.to_empty(device="cpu")
            kept.append(kept_bytes(mae.train(), images, size, bfloat16=True))
    blocks = [sum(value.numel() for value in block.parameters()) for block in mae.modules() if isinstance(block, Block)]
    parameters = sum(value.numel() for value in mae.parameters())
    whole, checkpointed = (PassMemory(2 * one - two, two - one) for one, two in zip(*kept, strict=True))
    return Needs(parameters, max(blocks), parameters - sum(blocks), whole, checkpointed)
