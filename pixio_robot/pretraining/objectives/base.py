"""What masked-autoencoder pretraining and distillation share: images of a step, and everything random about them.

Shape letters: B images, C channels, H and W pixels, N patches, L residual branches.
"""

import abc
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pixio_robot.encoders import PixioVisionTransformer, load_encoder_weights
from pixio_robot.engine.objective import Batch
from pixio_robot.engine.processes import Processes
from pixio_robot.engine.sharding import checkpoint_activations, materialise, shard
from pixio_robot.images.augment import ColourChanges, change_photometrically, draw_changes
from pixio_robot.pretraining.batches import STEP, generator_for, own_part
from pixio_robot.pretraining.config import TrainingConfig
from pixio_robot.pretraining.crops import sent
from pixio_robot.pretraining.model.execution import compile_blocks, use_bfloat16_residuals, use_plain_attention
from pixio_robot.pretraining.model.masking import block_mask, split_patches
from pixio_robot.pretraining.model.stochastic_depth import StochasticDepth
from pixio_robot.pretraining.sources import ImageSource


class ImagePart(NamedTuple):
    """Images that one forward and backward pass takes, and everything random about them but their crops."""

    images_BCHW: Tensor
    """uint8."""
    visible_BV: Tensor
    """Which patches the encoder sees, ascending."""
    masked_BM: Tensor
    """Which it does not."""
    changes: ColourChanges | None
    depth_BL: Tensor
    """Factors of residual branches; see `StochasticDepth`."""

    def rows(self, rows: slice) -> "ImagePart":
        """Return some of the images with what belongs to them."""
        changes = self.changes and ColourChanges(*(change[rows] for change in self.changes))
        return ImagePart(
            self.images_BCHW[rows], self.visible_BV[rows], self.masked_BM[rows], changes, self.depth_BL[rows]
        )


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
        if config.residual == "bfloat16":
            use_bfloat16_residuals(self.module)
        if config.compile_blocks:
            compile_blocks(self.module, device)
        if processes.sharded:
            shard(self.module, device, config.mesh, getattr(torch, config.residual))
            materialise(self.module, device, config.seed)
            self.start()
        else:
            self.module.to(device)

    def start(self) -> None:
        """Load the weights to start from, where there are some and the module has values; it may be sharded.

        Raises:
            UserError: See `load_encoder_weights`.
        """
        if self.config.start_from is not None and not next(self.module.parameters()).is_meta:
            self.load(Path(self.config.start_from))

    def load(self, weights: Path) -> None:
        """Load the encoder's weights, from a file or a folder; see `load_encoder_weights`."""
        load_encoder_weights(self.encoder, weights, self.config.variant)

    def begin_step(self, step: int) -> None:
        """Nothing changes from step to step."""
        del step

    def drawn(self, batch: Batch[Tensor]) -> Batch[ImagePart]:
        """Draw what is random about a batch, and bring all to the device; the loader does it, ahead of the steps.

        It is drawn for the global batch, so that losses do not depend on how that is shared out and split.
        """
        config, generator = self.config, generator_for(self.config.seed, STEP, batch.step)
        mask_BN = block_mask(config.batch_size, self.grid, config.mask_ratio, config.mask_block, generator)[self._own]
        changes = draw_changes(config.batch_size, config.photometric, generator) if config.photometric else None
        depth_BL = self.depth.draw(config.batch_size, generator).T[self._own]
        visible_BV, masked_BM = split_patches(mask_BN)
        own_changes = changes and ColourChanges(*(self._sent(change[self._own]) for change in changes))
        images, visible, masked, depth = map(self._sent, (batch.data, visible_BV, masked_BM, depth_BL))
        part = ImagePart(images, visible, masked, own_changes, depth)
        return Batch(batch.step, part, batch.names, batch.state, batch.skipped)

    def _sent(self, tensor: Tensor) -> Tensor:
        return tensor if tensor.device == self._device else sent(tensor.contiguous(), self._device)

    def parts(self, batch: Batch[ImagePart]) -> list[ImagePart]:
        """Return equally many images for each of `accumulation` passes."""
        images = len(batch.data.images_BCHW)
        size = images // self.config.accumulation
        return [batch.data.rows(slice(first, first + size)) for first in range(0, images, size)]

    def weights(self, part: ImagePart) -> list[float]:
        """Every image has equally many masked patches."""
        return [len(part.images_BCHW)]

    def loss(self, module: nn.Module, part: ImagePart) -> Tensor:
        """Return the mean loss (1,) of images in the light that was drawn for them."""
        images_BCHW = part.images_BCHW.contiguous().float() / 255
        if part.changes:
            with torch.autocast(images_BCHW.device.type, enabled=False):  # colours are not rounded to eight bits
                images_BCHW = change_photometrically(images_BCHW, part.changes)
        self.depth.set_factors(part.depth_BL)
        return self.loss_of(module, images_BCHW, part)[None]

    @abc.abstractmethod
    def loss_of(self, module: nn.Module, images_BCHW: Tensor, part: ImagePart) -> Tensor:
        """Return the mean loss (scalar) of images in [0, 1].

        Args:
            module: `self.module` or a wrapper of it.
            images_BCHW: On the device.
            part: What the images are of; its patches count.
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
