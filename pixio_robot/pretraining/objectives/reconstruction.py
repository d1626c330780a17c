"""What a run minimises: the one thing in which masked-autoencoder pretraining and distillation differ."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from pixio_robot.encoders import PixioVisionTransformer
from pixio_robot.images.augment import normalise
from pixio_robot.pretraining.config import PretrainConfig
from pixio_robot.pretraining.model.mae import PixioMAE
from pixio_robot.pretraining.model.weights import create_encoder, save_mae, start_decoder
from pixio_robot.pretraining.pictures import reconstruct


class Objective(Protocol):
    """A loss, the module it trains, and what is left of it in the end."""

    phase: str
    """Name in log and progress bar."""
    loss_name: str
    """What the loss measures, for the picture of its curve."""

    @property
    def module(self) -> nn.Module:
        """Everything that is trained, and nothing else; has `initialise()`, which sets all its parameters."""
        ...

    @property
    def encoder(self) -> PixioVisionTransformer:
        """The part of `module` that the run is for."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return plain values, beyond the settings, that a resumed run must share."""
        ...

    def to(self, device: torch.device) -> None:
        """Move what the loss needs but does not train."""
        ...

    def loss(self, module: nn.Module, seen_BCHW: Tensor, asked_BCHW: Tensor, mask_BN: Tensor) -> Tensor:
        """Return the mean loss.

        Args:
            module: `self.module` or a wrapper of it.
            seen_BCHW: What the encoder sees, in [0, 1].
            asked_BCHW: What it is asked for: the same scenes, as they looked before changes of light and surfaces.
            mask_BN: True where the encoder must not see a patch; on the CPU.
        """
        ...

    def picture(self, frames_BHWC: Tensor, seed: int) -> np.ndarray | None:
        """Draw what the module makes of uint8 images, as uint8 RGB; None where there is nothing to see."""
        ...

    def save(self, folder: Path, dtype: torch.dtype, write: bool) -> None:
        """Write loadable weights; all processes call this together where the module is sharded."""
        ...


class Reconstruction:
    """Masked-autoencoder pretraining (arXiv 2512.15715, §3)."""

    phase = "pretraining"
    loss_name = "loss on masked patches (normalised pixels)"

    def __init__(self, config: PretrainConfig) -> None:
        """Build encoder and decoder.

        Raises:
            UserError: Variant, image size or decoder do not fit each other.
        """
        self.variant = config.variant
        self.encoder = create_encoder(config.variant, config.image_size, config.drop_path, config.start_from)
        self.module = PixioMAE(
            self.encoder,
            config.decoder_dim,
            config.decoder_depth,
            config.decoder_heads,
            config.mask_ratio,
            config.mask_block,
        )
        if config.start_from is not None:
            start_decoder(self.module, config.variant, Path(config.start_from))
        self.encoder.requires_grad_(not config.freeze_encoder)

    def identity(self) -> dict[str, Any]:
        """Nothing but the settings."""
        return {}

    def to(self, device: torch.device) -> None:
        """Everything is trained."""

    def loss(self, module: nn.Module, seen_BCHW: Tensor, asked_BCHW: Tensor, mask_BN: Tensor) -> Tensor:
        """Return the mean squared error on masked patches."""
        target_BCHW = None if asked_BCHW is seen_BCHW else normalise(asked_BCHW)
        return module(normalise(seen_BCHW), mask_BN=mask_BN, asked_BCHW=target_BCHW).loss

    def picture(self, frames_BHWC: Tensor, seed: int) -> np.ndarray:
        """Draw original, masked and reconstructed images."""
        return reconstruct(self.module, frames_BHWC, seed)

    def save(self, folder: Path, dtype: torch.dtype, write: bool) -> None:
        """Write `encoder.safetensors` and `decoder.safetensors`."""
        save_mae(self.module, self.variant, folder, dtype, write)
