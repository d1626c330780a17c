"""What masked-autoencoder pretraining and distillation share: images of a step, and everything random about them.

Shape letters: B images, C channels, H and W pixels, N patches, L residual branches.
"""

import abc
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pixio_robot.encoders import PixioVisionTransformer
from pixio_robot.engine.objective import Batch
from pixio_robot.engine.processes import Processes
from pixio_robot.engine.sharding import checkpoint_activations, materialise, shard
from pixio_robot.images.augment import ColourChanges, change_photometrically, draw_changes
from pixio_robot.pretraining.batches import STEP, generator_for, own_part
from pixio_robot.pretraining.config import TrainingConfig
from pixio_robot.pretraining.model.execution import compile_blocks, use_plain_attention
from pixio_robot.pretraining.model.masking import block_mask
from pixio_robot.pretraining.model.stochastic_depth import StochasticDepth
from pixio_robot.pretraining.sources import ImageSource


class ImagePart(NamedTuple):
    """Images that one forward and backward pass takes, and everything random about them but their crops."""

    images_BCHW: Tensor
    """uint8, on the device."""
    mask_BN: Tensor
    """True where the encoder must not see a patch; on the CPU."""
    changes: ColourChanges | None
    depth_LB: Tensor
    """Factors of residual branches; see `StochasticDepth`."""


class ImageObjective[C: TrainingConfig](abc.ABC):
    """A loss on batches of images; subclasses build `module` and `encoder` in their constructor.

    Attributes:
        module: Everything that is trained, and nothing else; has `initialise()`, which sets all its parameters.
        encoder: The part of `module` that the run is for.
        loss_name: What the loss measures, for the picture of its curve.
    """

    phase: str
    unit = "images"
    loss_name: str
    module: nn.Module
    encoder: PixioVisionTransformer

    def __init__(self, config: C) -> None:
        self.config = config

    @property
    def grid(self) -> tuple[int, int]:
        """Patches of an image along height and width."""
        return self.encoder.patch_embed.grid_size

    def prepare(self, processes: Processes, source: ImageSource) -> None:
        """Place the module on its device or devices, and decide how its blocks are executed.

        Args:
            processes: Each takes its part of every batch.
            source: Where the images will come from.

        Raises:
            UserError: The mask does not fit the images, or the batch cannot be shared out equally.
        """
        config, device = self.config, processes.device
        config.check_shared_by(processes.count)
        self._images = source.fingerprint
        block_mask(1, self.grid, config.mask_ratio, config.mask_block)
        self._own = own_part(config.batch_size, processes.rank, processes.count)
        self._device = device
        self.depth = StochasticDepth(self.module)
        if device.type == "cpu":
            use_plain_attention(self.module)
        if config.activation_checkpointing:
            checkpoint_activations(self.module)
        if config.compile_blocks:
            compile_blocks(self.module, device)
        if processes.sharded:
            shard(self.module, device)
            materialise(self.module, device, config.seed)
        else:
            self.module.to(device)

    def begin_step(self, step: int) -> None:
        """Nothing changes from step to step."""
        del step

    def parts(self, batch: Batch[Tensor]) -> list[ImagePart]:
        """Draw for the global batch, so that losses do not depend on how it is shared out and split."""
        config, generator = self.config, generator_for(self.config.seed, STEP, batch.step)
        mask_BN = block_mask(config.batch_size, self.grid, config.mask_ratio, config.mask_block, generator)
        changes = draw_changes(config.batch_size, config.photometric, generator) if config.photometric else None
        depth_LB = self.depth.draw(config.batch_size, generator)
        images_BCHW = batch.data.to(self._device, non_blocking=True)
        size = len(images_BCHW) // config.accumulation
        parts = []
        for first in range(0, len(images_BCHW), size):
            rows = slice(self._own.start + first, self._own.start + first + size)
            colours = changes and ColourChanges(*(change[rows] for change in changes))
            part = ImagePart(images_BCHW[first : first + size], mask_BN[rows], colours, depth_LB[:, rows])
            parts.append(part)
        return parts

    def weights(self, part: ImagePart) -> list[float]:
        """Every image has equally many masked patches."""
        return [len(part.images_BCHW)]

    def loss(self, module: nn.Module, part: ImagePart) -> Tensor:
        """Return the mean loss (1,) of images in the light that was drawn for them."""
        images_BCHW = part.images_BCHW.contiguous().float() / 255
        if part.changes:
            with torch.autocast(images_BCHW.device.type, enabled=False):  # colours are not rounded to eight bits
                images_BCHW = change_photometrically(images_BCHW, part.changes)
        self.depth.set_factors(part.depth_LB.to(images_BCHW.device, non_blocking=True))
        return self.loss_of(module, images_BCHW, part.mask_BN)[None]

    @abc.abstractmethod
    def loss_of(self, module: nn.Module, images_BCHW: Tensor, mask_BN: Tensor) -> Tensor:
        """Return the mean loss (scalar) of images in [0, 1].

        Args:
            module: `self.module` or a wrapper of it.
            images_BCHW: On the device.
            mask_BN: True where the encoder must not see a patch; on the CPU.
        """

    def identity(self) -> dict[str, Any]:
        """Return the settings and images that a resumed run must share to have the same losses."""
        return self.config.identity() | {"images": self._images}

    def picture(self, frames_BHWC: Tensor, seed: int) -> np.ndarray | None:
        """Draw what the module makes of uint8 images, as uint8 RGB; None where there is nothing to see."""
        return None

    def save(self, folder: Path) -> None:
        """Write loadable weights in float32."""
        self.write(folder, torch.float32, main=True)

    @abc.abstractmethod
    def write(self, folder: Path, dtype: torch.dtype, *, main: bool) -> None:
        """Write loadable weights; all processes call this together where the module is sharded, the main one writes."""
