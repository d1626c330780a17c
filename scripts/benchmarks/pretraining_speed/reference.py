"""The plain trainer that the speed ladder starts from: the same model and the same draws, written the obvious way.

Shape letters: B images, C channels, H and W pixels, N patches, V visible patches, X pixel values of a patch.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pixio_robot.images.augment import ColourChanges, change_photometrically, random_crops
from pixio_robot.images.patches import patch_statistics, patchify, take_patches
from pixio_robot.images.preprocessing import normalise
from pixio_robot.pretraining.batches import CROPS, generator_for, image_indices
from pixio_robot.pretraining.config import PretrainConfig
from pixio_robot.pretraining.model.mae import MAEOutput, PixioMAE
from pixio_robot.pretraining.model.masking import split_patches


class PlainMAE(nn.Module):
    """`PixioMAE` as one would write it first: all patches embedded by the convolution, tokens put back in order.

    Args:
        mae: Gives the parameters, which are shared, not copied.
        masked_only: Run head and loss on masked patches only, not on every token.
    """

    def __init__(self, mae: PixioMAE, masked_only: bool) -> None:
        super().__init__()
        self.mae = mae
        self.masked_only = masked_only

    def forward(self, images_BCHW: Tensor, mask_BN: Tensor) -> MAEOutput:
        """Return loss and predictions: of all patches in order, or of the masked ones if `masked_only`."""
        encoder, decoder = self.mae.encoder, self.mae.decoder
        classes, batch = encoder.num_prefix_tokens, len(images_BCHW)
        visible_BV, masked_BM = split_patches(mask_BN)
        embedded_BND = encoder.patch_embed(images_BCHW).flatten(1, 2) + encoder.pos_embed[:, classes:]
        known = encoder.class_tokens() + encoder.pos_embed[:, :classes]
        tokens = torch.cat([known.expand(batch, -1, -1), take_patches(embedded_BND, visible_BV)], dim=1)
        embedded = decoder.embed(encoder.norm(encoder.blocks(tokens)))
        hidden_BNE = decoder.mask_token.expand(batch, mask_BN.shape[1], -1).to(embedded.dtype)
        index_BVE = visible_BV[..., None].expand(-1, -1, embedded.shape[-1])
        ordered_BNE = hidden_BNE.scatter(1, index_BVE, embedded[:, classes:])
        x = decoder.blocks(torch.cat([embedded[:, :classes], ordered_BNE], dim=1) + decoder.pos_embed)
        target_BNX = patchify(images_BCHW, self.mae.patch)
        if self.masked_only:
            target_BNX, hidden = take_patches(target_BNX, masked_BM), take_patches(x[:, classes:], masked_BM)
            prediction_BNX, weight_BN = decoder.head(decoder.norm(hidden)), torch.ones_like(target_BNX[..., 0])
        else:
            prediction_BNX, weight_BN = decoder.head(decoder.norm(x))[:, classes:], mask_BN.float()
        mean, deviation = patch_statistics(target_BNX)
        error_BN = (prediction_BNX.float() - (target_BNX - mean) / deviation).square().mean(dim=2)
        return MAEOutput((error_BN * weight_BN).sum() / weight_BN.sum(), prediction_BNX, masked_BM)


class PlainImages(Dataset[Tensor]):
    """Images of consecutive steps, each read from its file, cropped by PIL, made float, changed and normalised.

    What is random is drawn beforehand, so that this costs the reference nothing.
    """

    def __init__(
        self, config: PretrainConfig, files: Sequence[Path], side: int, changes: Sequence[ColourChanges | None]
    ) -> None:
        """Prepare the rows of steps 0…len(changes)-1.

        Args:
            config: Settings of the run.
            files: Square images of `side` pixels, in the order of the cache that the other rungs read.
            side: Pixels along each side.
            changes: Photometric changes of the global batch of every step.
        """
        self.size = config.image_size
        self.rows: list[tuple[Path, list[int], ColourChanges | None]] = []
        for step, drawn in enumerate(changes):
            indices = image_indices(config.seed, step, config.batch_size, len(files))
            generator = generator_for(config.seed, CROPS, step)
            aspect_B, sides_B2 = torch.ones(len(indices)), torch.full((len(indices), 2), side)
            boxes_B4 = random_crops(aspect_B, sides_B2, config.crop_scale, config.crop_ratio, generator)
            for row, (index, box) in enumerate(zip(indices, boxes_B4.tolist(), strict=True)):
                own = ColourChanges(*(change[row : row + 1] for change in drawn)) if drawn else None
                self.rows.append((files[index], box, own))

    def __len__(self) -> int:
        """Count the images of all steps."""
        return len(self.rows)

    def __getitem__(self, row: int) -> Tensor:
        """Return a normalised float image (3, size, size)."""
        file, (top, left, height, width), changes = self.rows[row]
        with Image.open(file) as image:
            crop = image.convert("RGB").crop((left, top, left + width, top + height))
        pixels = np.asarray(crop.resize((self.size, self.size), Image.Resampling.BILINEAR))
        image_1CHW = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
        if changes:
            image_1CHW = change_photometrically(image_1CHW, changes)
        return normalise(image_1CHW)[0]


def plain_loader(images: PlainImages, batch_size: int, workers: int) -> DataLoader[Tensor]:
    """Return batches (B, 3, size, size) in order, prepared by worker processes."""
    return DataLoader(images, batch_size, shuffle=False, num_workers=workers)
