"""Masked-autoencoder pretraining (arXiv 2512.15715, §3)."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pixio_robot.images.preprocessing import normalise
from pixio_robot.pretraining.config import PretrainConfig
from pixio_robot.pretraining.model.mae import PixioMAE
from pixio_robot.pretraining.model.weights import create_encoder, save_mae, start_decoder
from pixio_robot.pretraining.objectives.base import ImageObjective, ImagePart
from pixio_robot.pretraining.pictures import reconstruct


class Reconstruction(ImageObjective[PretrainConfig]):
    """Masked patches from visible ones."""

    phase = "pretraining"
    loss_name = "loss on masked patches (normalised pixels)"

    def __init__(self, config: PretrainConfig) -> None:
        """Build encoder and decoder.

        Raises:
            UserError: Variant, image size or decoder do not fit each other.
        """
        super().__init__(config)
        self.encoder = create_encoder(config.variant, config.image_size, config.drop_path)
        self.module = PixioMAE(
            self.encoder,
            config.decoder_dim,
            config.decoder_depth,
            config.decoder_heads,
            config.mask_ratio,
            config.mask_block,
        )
        self.start()
        self.encoder.requires_grad_(not config.freeze_encoder)

    def load(self, weights: Path) -> None:
        """Load the encoder's weights, and those of the decoder that was pretrained with it; see `start_decoder`."""
        super().load(weights)
        assert isinstance(self.module, PixioMAE)
        start_decoder(self.module, self.config.variant, weights)

    def loss_of(self, module: nn.Module, images_BCHW: Tensor, part: ImagePart) -> Tensor:
        """Return the mean squared error on masked patches."""
        return module(normalise(images_BCHW), patches=(part.visible_BV, part.masked_BM)).loss

    def picture(self, frames_BHWC: Tensor, seed: int) -> np.ndarray:
        """Draw original, masked and reconstructed images."""
        assert isinstance(self.module, PixioMAE)
        return reconstruct(self.module, frames_BHWC, seed)

    def write(self, folder: Path, dtype: torch.dtype, *, main: bool) -> None:
        """Write `encoder.safetensors` and `decoder.safetensors`."""
        assert isinstance(self.module, PixioMAE)
        save_mae(self.module, self.config.variant, folder, dtype, main)
